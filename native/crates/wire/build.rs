//! Field numbers and enumeration values of our own `.proto` files, as Rust constants: the description of the wire has one source.
//!
//! Understands what those files use (messages, nested enumerations, `oneof`, `repeated`) and stops the build at anything else.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../../src/pekan/wire/proto");
    let mut out = String::new();
    for name in ["pekan_wire", "pekan_record"] {
        let path = root.join(format!("{name}.proto"));
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        generate(&text, &path, &mut out);
    }
    let target = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("numbers.rs");
    fs::write(&target, out).expect("the build directory is writable");
}

/// Appends one module for each message (its fields) and for each enumeration (its values).
fn generate(text: &str, path: &Path, out: &mut String) {
    let mut open: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split("//").next().unwrap_or("").trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] | ["syntax", ..] | ["package", ..] => {}
            [kind @ ("message" | "enum"), name, "{"] => {
                let _ = writeln!(out, "/// Numbers of the {kind} `{name}`.\npub mod r#{} {{", snake(name));
                open.push("}\n".into());
            }
            ["message", name, "{}"] => {
                let _ = writeln!(out, "/// Numbers of the message `{name}`: it has no field.\npub mod r#{} {{}}", snake(name));
            }
            ["oneof", _, "{"] => open.push(String::new()),
            ["}"] => out.push_str(&open.pop().expect("a brace closes what was opened")),
            [.., name, "=", value] if value.ends_with(';') => {
                let value = value.trim_end_matches(';');
                let _ = writeln!(out, "/// `{name}`\npub const {}: u32 = {value};", snake(name).to_uppercase());
            }
            _ => panic!("{}:{}: not understood: {line}", path.display(), number + 1),
        }
    }
    assert!(open.is_empty(), "{}: a brace is missing", path.display());
}

/// `RangeRequest` as `range_request`; `ID` and `TTL` stay in one piece.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut previous = '_';
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && (previous.is_ascii_lowercase() || previous.is_ascii_digit()) {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
        previous = letter;
    }
    out
}
