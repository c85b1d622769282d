package main

import (
	"fmt"
	"hash/maphash"
	"math"

	"github.com/anishathalye/porcupine"
)

// never is when an operation without an answer returns.
const never = math.MaxInt64

// call is one operation on an object as a file tells it. answered is false where nobody saw an answer.
type call struct {
	process    int
	f          string
	key        any
	value      any
	output     any
	start, end int64
	answered   bool
}

const (
	read = iota
	write
	compareAndSet
)

// nothing is the number of nil, and of what is not there.
const nothing = 0

// asked is the input of an operation on a register, queue or stack; values are numbers. The output is a number, or nil where unknown.
type asked struct {
	kind     int
	value    int32
	expected int32
}

// numbers gives equal values equal numbers.
type numbers map[string]int32

func (n numbers) of(value any) int32 {
	if value == nil {
		return nothing
	}
	text := fmt.Sprintf("%T%v", value, value)
	number, known := n[text]
	if !known {
		number = int32(len(n) + 1)
		n[text] = number
	}
	return number
}

// objectQuestion is the model of that name and its operations. What failed, and reads that nobody saw answered, are left out.
func objectQuestion(name string, calls []call) (porcupine.Model, []porcupine.Operation, error) {
	values := numbers{}
	var model porcupine.Model
	kinds := map[string]int{}
	switch name {
	case "register", "cas-register":
		model, kinds = registerModel(), map[string]int{"read": read, "write": write, "cas": compareAndSet}
	case "fifo-queue":
		model, kinds = queueModel(), map[string]int{"dequeue": read, "enqueue": write}
	case "stack":
		model, kinds = stackModel(), map[string]int{"pop": read, "push": write}
	case "kv-append":
		return kvQuestion(calls)
	default:
		return model, nil, fmt.Errorf("no model %q", name)
	}
	operations := make([]porcupine.Operation, 0, len(calls))
	for _, c := range calls {
		kind, known := kinds[c.f]
		if !known {
			return model, nil, fmt.Errorf("a %s knows no %s", name, c.f)
		}
		if kind == read && !c.answered && c.f == "read" {
			continue
		}
		operation := porcupine.Operation{ClientId: c.process, Call: c.start, Return: c.end}
		input := asked{kind: kind}
		switch kind {
		case write:
			input.value = values.of(c.value)
		case compareAndSet:
			pair, ok := c.value.([]any)
			if !ok || len(pair) != 2 {
				return model, nil, fmt.Errorf("cas of %v: expected [old new]", c.value)
			}
			input.expected, input.value = values.of(pair[0]), values.of(pair[1])
		}
		operation.Input = input
		if c.answered {
			if kind == compareAndSet {
				operation.Output = c.output != false
			} else {
				operation.Output = values.of(c.output)
			}
		}
		operations = append(operations, operation)
	}
	return model, operations, nil
}

func registerModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return int32(nothing) },
		Step: func(state, input, output any) (bool, any) {
			now, in := state.(int32), input.(asked)
			switch in.kind {
			case write:
				return true, in.value
			case compareAndSet:
				same := now == in.expected
				if output != nil && output.(bool) != same {
					return false, state
				}
				if same {
					return true, in.value
				}
				return true, state
			default:
				return output == nil || output.(int32) == now, state
			}
		},
		Equal: func(a, b any) bool { return a.(int32) == b.(int32) },
		Hash:  func(state any) uint64 { return mix(uint64(state.(int32))) },
	}
}

// mix scatters a number over 64 bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// link is a value that lies on others; several stacks share what is below. For a queue, the newest value: jump leads to an older one, so
// that the oldest is found in few steps.
type link struct {
	value int32
	depth int
	hash  uint64
	below *link
	jump  *link
}

const base = 0x9e3779b97f4a7c15

func (l *link) size() int {
	if l == nil {
		return 0
	}
	return l.depth
}

func (l *link) with(value int32) *link {
	added := &link{value: value, depth: l.size() + 1, hash: base + mix(uint64(value)), below: l, jump: l}
	if l != nil {
		added.hash = l.hash*base + mix(uint64(value))
		// Jumps double where two of equal length follow one another.
		if j := l.jump; j != nil && l.depth-j.depth == j.depth-j.jump.size() {
			added.jump = j.jump
		}
	}
	return added
}

// at is the link of that depth.
func (l *link) at(depth int) *link {
	for l.depth > depth {
		if l.jump != nil && l.jump.depth >= depth {
			l = l.jump
		} else {
			l = l.below
		}
	}
	return l
}

// same tells whether the uppermost count values are the same.
func same(a, b *link, count int) bool {
	for ; count > 0 && a != b; count-- {
		if a.value != b.value {
			return false
		}
		a, b = a.below, b.below
	}
	return true
}

func stackModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return (*link)(nil) },
		Step: func(state, input, output any) (bool, any) {
			top, in := state.(*link), input.(asked)
			if in.kind == write {
				return true, top.with(in.value)
			}
			if top == nil {
				return output == nil || output.(int32) == nothing, state
			}
			return output == nil || output.(int32) == top.value, top.below
		},
		Equal: func(a, b any) bool {
			x, y := a.(*link), b.(*link)
			return x.size() == y.size() && same(x, y, x.size())
		},
		Hash: func(state any) uint64 {
			if top := state.(*link); top != nil {
				return top.hash
			}
			return 0
		},
	}
}

// line is a queue: the newest value, how many there are, and a hash of them.
type line struct {
	newest *link
	count  int
	hash   uint64
}

func queueModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return line{} },
		Step: func(state, input, output any) (bool, any) {
			now, in := state.(line), input.(asked)
			if in.kind == write {
				return true, line{now.newest.with(in.value), now.count + 1, now.hash*base + mix(uint64(in.value))}
			}
			if now.count == 0 {
				return output == nil || output.(int32) == nothing, state
			}
			oldest := now.newest.at(now.newest.depth - now.count + 1)
			if output != nil && output.(int32) != oldest.value {
				return false, state
			}
			return true, line{now.newest, now.count - 1, now.hash - mix(uint64(oldest.value))*power(now.count-1)}
		},
		Equal: func(a, b any) bool {
			x, y := a.(line), b.(line)
			return x.count == y.count && same(x.newest, y.newest, x.count)
		},
		Hash: func(state any) uint64 { return state.(line).hash },
	}
}

// power is base to the n.
func power(n int) uint64 {
	result, square := uint64(1), uint64(base)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result *= square
		}
		square *= square
	}
	return result
}

const (
	get = iota
	put
	appendTo
)

type kvAsked struct {
	kind  int
	key   string
	value string
}

type text struct {
	value string
	hash  uint64
}

var seed = maphash.MakeSeed()

// kvQuestion is a store of texts that are read, replaced and appended to, divided by key.
func kvQuestion(calls []call) (porcupine.Model, []porcupine.Operation, error) {
	kinds := map[string]int{"get": get, "put": put, "append": appendTo}
	var operations []porcupine.Operation
	for _, c := range calls {
		kind, known := kinds[c.f]
		if !known {
			return porcupine.Model{}, nil, fmt.Errorf("kv-append knows no %s", c.f)
		}
		if kind == get && !c.answered {
			continue
		}
		operation := porcupine.Operation{ClientId: c.process, Call: c.start, Return: c.end}
		value, _ := c.value.(string)
		operation.Input = kvAsked{kind, fmt.Sprint(c.key), value}
		if c.answered {
			operation.Output, _ = c.output.(string)
		}
		operations = append(operations, operation)
	}
	model := porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, o := range history {
				key := o.Input.(kvAsked).key
				byKey[key] = append(byKey[key], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init: func() any { return text{"", maphash.String(seed, "")} },
		Step: func(state, input, output any) (bool, any) {
			now, in := state.(text), input.(kvAsked)
			switch in.kind {
			case get:
				return output == now.value, state
			case put:
				return true, text{in.value, maphash.String(seed, in.value)}
			default:
				after := now.value + in.value
				return true, text{after, maphash.String(seed, after)}
			}
		},
		Equal: func(a, b any) bool { return a.(text).value == b.(text).value },
		Hash:  func(state any) uint64 { return state.(text).hash },
	}
	return model, operations, nil
}
