//! Several questions and one budget; see `pekan.checkers.linearizability.engine`, whose rounds these are.

use crate::machine::Machine;
use crate::question::{Answer, Bound, Budget, Question, Verdict};
use crate::search::Search;
use std::time::{Duration, Instant};

/// Steps of the first round, and two for each operation on top.
const FIRST_STEPS: u64 = 2_000;
/// Steps of a round by those of the round before.
const GROWTH: u64 = 4;
/// The second seed: another set of tokens, as independent of the first as the mixing function is good.
const SECOND_SEED: u64 = 0x5bd1_e995_9d1c_a4f3;

/// How the engine is run.
pub struct Run<'a, E> {
    /// Bounds.
    pub budget: Budget,
    /// Steps between two looks at the clock.
    pub slice_steps: u64,
    /// Called at every look at the clock; an error ends everything (Ctrl-C).
    pub interrupt: &'a mut dyn FnMut() -> Result<(), E>,
    /// Tell configurations apart by tokens even where an exact key would do (for tests of the tokens).
    pub tokens: bool,
}

/// An answer to each question.
pub fn solve_all<M: Machine>(questions: Vec<(Question, M)>, run: &mut Run<'_, M::Error>) -> Result<Vec<Answer>, M::Error> {
    // A time too long to be told is no bound.
    let deadline = run.budget.time_s.and_then(|seconds| Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?));
    let mut answers: Vec<Option<Answer>> = questions.iter().map(|_| None).collect();
    let mut waiting: Vec<Option<(Question, M)>> = questions.into_iter().map(Some).collect();
    let mut open: Vec<Option<Search<M>>> = waiting.iter().map(|_| None).collect();
    let mut elsewhere = 0; // Bytes of the open searches that are not running.
    let mut limit = FIRST_STEPS;
    let first = run.tokens.then_some(0);
    let mut illegal = false;
    while answers.iter().any(Option::is_none) {
        let stop = illegal;
        for i in 0..answers.len() {
            if answers[i].is_some() {
                continue;
            }
            let mut search = match (open[i].take(), waiting[i].take()) {
                (Some(search), _) => {
                    elsewhere -= search.memory_bytes();
                    search
                }
                (None, Some(_)) if stop => {
                    answers[i] = Some(Answer::not_begun());
                    continue;
                }
                (None, Some((question, machine))) => Search::new(question, machine, first),
                (None, None) => continue,
            };
            let steps = limit + search.events();
            let mut bound = if stop { Bound::Elsewhere } else { advance(&mut search, steps, elsewhere, deadline, run)? };
            if search.verdict() == Verdict::Illegal && search.by_tokens() {
                // Two configurations with one sum would have hidden a branch: nothing is illegal until another seed says so too.
                (search, bound) = again(search, elsewhere, deadline, run)?;
            }
            if search.verdict() != Verdict::Unknown || bound != Bound::None {
                illegal |= search.verdict() == Verdict::Illegal;
                answers[i] = Some(search.answer(bound));
            } else {
                elsewhere += search.memory_bytes();
                open[i] = Some(search);
            }
        }
        limit = limit.saturating_mul(GROWTH);
    }
    Ok(answers.into_iter().flatten().collect())
}

/// The same question with other tokens, to its end.
fn again<M: Machine>(
    search: Search<M>,
    elsewhere: usize,
    deadline: Option<Instant>,
    run: &mut Run<'_, M::Error>,
) -> Result<(Search<M>, Bound), M::Error> {
    let (question, machine) = search.into_parts();
    let mut second = Search::new(question, machine, Some(SECOND_SEED));
    let bound = advance(&mut second, u64::MAX, elsewhere, deadline, run)?;
    Ok((second, bound))
}

/// Run `search` up to `limit` steps; the bound that was met, if one was.
fn advance<M: Machine>(
    search: &mut Search<M>,
    limit: u64,
    elsewhere: usize,
    deadline: Option<Instant>,
    run: &mut Run<'_, M::Error>,
) -> Result<Bound, M::Error> {
    let steps = run.budget.steps.map_or(limit, |bound| limit.min(bound));
    while !search.run(steps.min(search.steps().saturating_add(run.slice_steps)))? {
        (run.interrupt)()?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Bound::Time);
        }
        if run.budget.memory_bytes.is_some_and(|bytes| elsewhere + search.memory_bytes() > bytes) {
            return Ok(Bound::Memory);
        }
        if search.steps() >= steps {
            return Ok(if run.budget.steps == Some(steps) { Bound::Steps } else { Bound::None });
        }
    }
    Ok(Bound::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{ILLEGAL, NEVER};

    /// A register: class 2 v reads v, class 2 v + 1 writes it.
    struct Register;

    impl Machine for Register {
        type Error = String;

        fn step(&mut self, state: u32, class: u32) -> Result<u32, String> {
            Ok(if class % 2 == 1 {
                class / 2
            } else if class / 2 == state {
                state
            } else {
                ILLEGAL
            })
        }

        fn contradiction(&self, state: u32, class: u32, after: u32) -> String {
            format!("{class} at {state} leads to {after}")
        }
    }

    fn register(operations: &[(u32, i64, i64)]) -> (Question, Register) {
        let question = Question {
            call: operations.iter().map(|o| o.1).collect(),
            ret: operations.iter().map(|o| o.2).collect(),
            of: operations.iter().map(|o| o.0).collect(),
            readonly: (0..64).map(|class| class % 2 == 0).collect(),
            ..Question::default()
        };
        (question, Register)
    }

    fn run(questions: Vec<(Question, Register)>, budget: Budget) -> Vec<Answer> {
        let mut run = Run { budget, slice_steps: 10, interrupt: &mut || Ok(()), tokens: false };
        solve_all(questions, &mut run).unwrap()
    }

    #[test]
    fn an_indefinite_write_is_used_where_it_is_needed() {
        let [answer] = &run(vec![register(&[(3, 0, NEVER), (0, 1, 2), (2, 3, 4)])], Budget::default())[..] else { panic!() };
        assert_eq!((answer.verdict, &answer.order[..]), (Verdict::Ok, &[1, 0, 2][..]));
    }

    #[test]
    fn an_easy_violation_is_found_before_a_hard_part_is_done() {
        let mut hard: Vec<_> = (0..16).map(|v| (2 * v + 1, 0, 100)).collect();
        hard.push((62, 101, 102));
        let answers = run(vec![register(&hard), register(&[(2, 0, 1)]), register(&hard)], Budget::default());
        let told: Vec<_> = answers.iter().map(|answer| (answer.verdict, answer.bound)).collect();
        let left = (Verdict::Unknown, Bound::Elsewhere);
        assert_eq!(told, [left, (Verdict::Illegal, Bound::None), left]);
    }

    #[test]
    fn bounds_are_kept() {
        let mut hard: Vec<_> = (0..16).map(|v| (2 * v + 1, 0, 100)).collect();
        hard.push((62, 101, 102));
        for (budget, bound) in [
            (Budget { steps: Some(99), ..Budget::default() }, Bound::Steps),
            (Budget { time_s: Some(0.0), ..Budget::default() }, Bound::Time),
            (Budget { memory_bytes: Some(1), ..Budget::default() }, Bound::Memory),
        ] {
            let [answer] = &run(vec![register(&hard)], budget)[..] else { panic!() };
            assert_eq!((answer.verdict, answer.bound), (Verdict::Unknown, bound));
        }
    }

    #[test]
    fn an_interruption_ends_the_search() {
        let mut hard: Vec<_> = (0..16).map(|v| (2 * v + 1, 0, 100)).collect();
        hard.push((62, 101, 102));
        let mut interrupt = || Err("stopped".to_owned());
        let mut run = Run { budget: Budget::default(), slice_steps: 10, interrupt: &mut interrupt, tokens: false };
        assert_eq!(solve_all(vec![register(&hard)], &mut run).unwrap_err(), "stopped");
    }
}
