package main

import (
	"bytes"
	"fmt"
	"sort"

	"github.com/anishathalye/porcupine"
)

// What a request asks for and what its answer shows, keys and values by number. Keys are numbered in their order, so that a range of keys is
// a range of numbers.

const (
	rangeOf = iota
	putKey
	deleteRange
	txn
	observe
	revoke
)

type shown struct {
	key                  int32
	value                int32
	create, mod, version int64
}

type guard struct {
	first, end int32
	result     uint64
	target     uint64
	operand    int64
}

type action struct {
	kind       int
	first, end int32
	single     bool
	value      int32
	lease      int64
	limit      int
	revision   int64
	count      bool
	ignore     bool
	guards     []guard
	success    []*action
	failure    []*action
}

// answer of a request; revision 0 where it says none (inside a transaction).
type answer struct {
	revision  int64
	kvs       []shown
	count     int64
	deleted   int64
	succeeded bool
	inner     []*answer
}

// ---- the store ----

type held struct {
	value                int32
	create, mod, version int64
	lease                int64
}

const leafSize = 16

type leaf [leafSize]*held

// store is one state. Stores share the leaves that they have in common.
type store struct {
	revision int64
	hash     uint64
	leaves   []*leaf
}

func (s *store) at(key int32) *held { return s.leaves[key/leafSize][key%leafSize] }

func hashOf(key int32, h *held) uint64 {
	if h == nil {
		return 0
	}
	return mix(uint64(key)<<40 ^ uint64(h.mod)<<16 ^ uint64(h.value))
}

// draft is a store in the making: what it changes is copied first, once.
type draft struct {
	store
	from    *store
	own     []bool
	changed bool
}

func (d *draft) set(key int32, value *held) {
	if d.own == nil {
		d.leaves = append([]*leaf(nil), d.from.leaves...)
		d.own = make([]bool, len(d.leaves))
	}
	number := key / leafSize
	if !d.own[number] {
		copied := *d.leaves[number]
		d.leaves[number], d.own[number] = &copied, true
	}
	spot := &d.leaves[number][key%leafSize]
	d.hash += hashOf(key, value) - hashOf(key, *spot)
	*spot = value
	d.changed = true
}

// do carries an action out and tells whether the answer (nil: not known) is the right one.
func (d *draft) do(a *action, told *answer) bool {
	switch a.kind {
	case rangeOf:
		return told == nil || d.look(a, told)
	case putKey:
		old := d.at(a.first)
		now := &held{value: a.value, create: d.from.revision + 1, mod: d.from.revision + 1, version: 1, lease: a.lease}
		if old != nil {
			now.create, now.version = old.create, old.version+1
			if a.ignore {
				now.value = old.value
			}
		}
		d.set(a.first, now)
		return true
	case deleteRange:
		gone := int64(0)
		for key := a.first; key < a.end; key++ {
			if d.at(key) != nil {
				d.set(key, nil)
				gone++
			}
		}
		return told == nil || told.deleted == gone
	case revoke:
		for key := range int32(len(d.leaves) * leafSize) {
			if h := d.at(key); h != nil && h.lease == a.lease {
				d.set(key, nil)
			}
		}
		return true
	case observe:
		return true
	}
	succeeded := true
	for i := range a.guards {
		succeeded = succeeded && d.guarded(&a.guards[i])
	}
	if told != nil && told.succeeded != succeeded {
		return false
	}
	branch := a.failure
	if succeeded {
		branch = a.success
	}
	for i, inner := range branch {
		var innerTold *answer
		if told != nil {
			if len(told.inner) != len(branch) {
				return false
			}
			innerTold = told.inner[i]
		}
		if !d.do(inner, innerTold) {
			return false
		}
	}
	return true
}

func (d *draft) guarded(g *guard) bool {
	for key := g.first; key < g.end; key++ {
		h := d.at(key)
		if h == nil {
			if g.target == 3 {
				return false // No value compares with none.
			}
			h = &held{}
		}
		have := [...]int64{h.version, h.create, h.mod, int64(h.value), h.lease}[g.target]
		if ok := [...]bool{have == g.operand, have > g.operand, have < g.operand, have != g.operand}[g.result]; !ok {
			return false
		}
	}
	return true
}

func (d *draft) look(a *action, told *answer) bool {
	if a.revision != 0 && a.revision != d.from.revision {
		return a.revision < d.from.revision // What was there then is not looked at.
	}
	count, seen := int64(0), 0
	for key := a.first; key < a.end; key++ {
		h := d.at(key)
		if h == nil {
			continue
		}
		count++
		if a.count || (a.limit > 0 && seen == a.limit) {
			continue
		}
		if seen == len(told.kvs) {
			return false
		}
		if kv := &told.kvs[seen]; kv.key != key || kv.mod != h.mod || kv.value != h.value || kv.version != h.version || kv.create != h.create {
			return false
		}
		seen++
	}
	return seen == len(told.kvs) && count == told.count
}

// step is the model's: the header's revision is looked at first, for it refuses most of what cannot come next.
func step(state, input, output any) (bool, any) {
	now, a := state.(*store), input.(*action)
	var told *answer
	if output != nil {
		told = output.(*answer)
		if told.revision != now.revision && (told.revision != now.revision+1 || a.kind == rangeOf || a.kind == observe) {
			return false, state
		}
		if a.kind == putKey && told.revision == now.revision {
			return false, state
		}
	}
	d := draft{store: *now, from: now}
	if !d.do(a, told) {
		return false, state
	}
	if !d.changed {
		return told == nil || told.revision == now.revision, state
	}
	d.revision++
	if told != nil && told.revision != d.revision {
		return false, state
	}
	after := d.store
	return true, &after
}

func equal(a, b any) bool {
	x, y := a.(*store), b.(*store)
	if x == y {
		return true
	}
	if x.revision != y.revision || x.hash != y.hash {
		return false
	}
	for i := range x.leaves {
		if x.leaves[i] == y.leaves[i] {
			continue
		}
		for j := range leafSize {
			p, q := x.leaves[i][j], y.leaves[i][j]
			if p != q && (p == nil || q == nil || *p != *q) {
				return false
			}
		}
	}
	return true
}

// ---- from the wire ----

// names numbers keys and values. Keys are collected first and numbered in their order; the empty value is number 0.
type names struct {
	keys   map[string]int32
	sorted []string
	values map[string]int32
}

func (n *names) sort() {
	for key := range n.keys {
		n.sorted = append(n.sorted, key)
	}
	sort.Strings(n.sorted)
	for number, key := range n.sorted {
		n.keys[key] = int32(number)
	}
}

func (n *names) value(text []byte) int32 {
	number, known := n.values[string(text)]
	if !known {
		number = int32(len(n.values))
		n.values[string(text)] = number
	}
	return number
}

// span is the numbers of the keys in [key, end), as etcd reads the two.
func (n *names) span(key, end []byte) (first, last int32, single bool) {
	first = int32(sort.SearchStrings(n.sorted, string(key)))
	switch {
	case len(end) == 0:
		if number, known := n.keys[string(key)]; known {
			return number, number + 1, true
		}
		return first, first, true
	case bytes.Equal(end, []byte{0}):
		return first, int32(len(n.sorted)), false
	}
	return first, max(first, int32(sort.SearchStrings(n.sorted, string(end)))), false
}

const methods = "/etcdserverpb."

// etcdQuestion makes operations of the calls that are linearizable: serializable reads are another promise, refusals change nothing.
func etcdQuestion(calls []rpc) (porcupine.Model, []porcupine.Operation, error) {
	n := &names{keys: map[string]int32{}, values: map[string]int32{"": 0}}
	for _, c := range calls {
		if err := n.collect(c); err != nil {
			return porcupine.Model{}, nil, err
		}
	}
	n.sort()
	var operations []porcupine.Operation
	for _, c := range calls {
		a, err := n.request(c.method, c.request)
		if err != nil {
			return porcupine.Model{}, nil, err
		}
		if a == nil || (c.code != 0 && (refused(c.code) || !writes(a))) || (!c.answered && !writes(a)) {
			continue
		}
		operation := porcupine.Operation{ClientId: c.process, Input: a, Call: c.start, Return: never}
		if c.answered && c.code == 0 {
			told, err := n.response(a, c.response)
			if err != nil {
				return porcupine.Model{}, nil, err
			}
			operation.Output, operation.Return = told, c.end
		}
		operations = append(operations, operation)
	}
	model := porcupine.Model{
		Init: func() any {
			s := &store{revision: 1, leaves: make([]*leaf, (len(n.sorted)+leafSize-1)/leafSize)}
			for i := range s.leaves {
				s.leaves[i] = &leaf{}
			}
			return s
		},
		Step:  step,
		Equal: equal,
		Hash:  func(state any) uint64 { s := state.(*store); return mix(s.hash + uint64(s.revision)) },
	}
	return model, operations, nil
}

// refused tells whether a gRPC status says that nothing happened: invalid argument, not found, already exists, permission denied, failed
// precondition, out of range, unimplemented, unauthenticated.
func refused(code uint64) bool {
	switch code {
	case 3, 5, 6, 7, 9, 11, 12, 16:
		return true
	}
	return false
}

func writes(a *action) bool {
	switch a.kind {
	case putKey, deleteRange, revoke:
		return true
	case txn:
		for _, inner := range append(append([]*action(nil), a.success...), a.failure...) {
			if writes(inner) {
				return true
			}
		}
	}
	return false
}

// collect notes the keys that a call names or shows.
func (n *names) collect(c rpc) error {
	key := func(text []byte) { n.keys[string(text)] = 0 }
	var request func(kind int, message []byte) error
	request = func(kind int, message []byte) error {
		return fields(message, func(number int, _ uint64, data []byte) error {
			switch {
			case kind != 4 && number == 1:
				key(data)
			case kind == 4 && number == 1:
				return fields(data, func(number int, _ uint64, data []byte) error {
					if number == 3 {
						key(data)
					}
					return nil
				})
			case kind == 4:
				return fields(data, func(number int, _ uint64, data []byte) error { return request(number, data) })
			}
			return nil
		})
	}
	if kind := kindOf(c.method); kind != 0 {
		return request(kind, c.request)
	}
	return nil
}

// kindOf is the number that RequestOp gives to a method's request, 0 for others.
func kindOf(method string) int {
	switch method {
	case methods + "KV/Range":
		return 1
	case methods + "KV/Put":
		return 2
	case methods + "KV/DeleteRange":
		return 3
	case methods + "KV/Txn":
		return 4
	}
	return 0
}

// request decodes what was asked for; nil where it is no linearizable operation on keys.
func (n *names) request(method string, message []byte) (*action, error) {
	switch method {
	case methods + "Lease/LeaseGrant":
		return &action{kind: observe}, nil
	case methods + "Lease/LeaseRevoke":
		a := &action{kind: revoke}
		return a, fields(message, func(_ int, value uint64, _ []byte) error { a.lease = int64(value); return nil })
	}
	if kind := kindOf(method); kind != 0 {
		a, local, err := n.action(kind, message)
		if local {
			a = nil
		}
		return a, err
	}
	return nil, nil
}

// action decodes a request of that kind; local where all that it does is serializable reading.
func (n *names) action(kind int, message []byte) (a *action, local bool, err error) {
	a = &action{kind: kind - 1}
	var key, end []byte
	if kind == 4 {
		return n.txn(a, message)
	}
	err = fields(message, func(number int, value uint64, data []byte) error {
		switch {
		case number == 1:
			key = data
		case kind != 2 && number == 2:
			end = data
		case kind == 2 && number == 2:
			a.value = n.value(data)
		case kind == 2 && number == 3:
			a.lease = int64(value)
		case kind == 2 && number == 5:
			a.ignore = value != 0
		case kind == 1 && number == 3:
			a.limit = int(value)
		case kind == 1 && number == 4:
			a.revision = int64(value)
		case kind == 1 && number == 7:
			local = value != 0
		case kind == 1 && number == 9:
			a.count = value != 0
		case kind == 1 && (number == 5 || number == 8 || number >= 10):
			return fmt.Errorf("a range with option %d: this peer does not judge that", number)
		}
		return nil
	})
	a.first, a.end, a.single = n.span(key, end)
	return a, local, err
}

func (n *names) txn(a *action, message []byte) (*action, bool, error) {
	local := true
	err := fields(message, func(number int, _ uint64, data []byte) error {
		if number == 1 {
			g, err := n.guard(data)
			a.guards = append(a.guards, g)
			return err
		}
		return fields(data, func(kind int, _ uint64, data []byte) error {
			inner, innerLocal, err := n.action(kind, data)
			local = local && innerLocal
			if number == 2 {
				a.success = append(a.success, inner)
			} else {
				a.failure = append(a.failure, inner)
			}
			return err
		})
	})
	return a, local, err
}

func (n *names) guard(message []byte) (g guard, err error) {
	var key, end []byte
	err = fields(message, func(number int, value uint64, data []byte) error {
		switch number {
		case 1:
			g.result = value
		case 2:
			g.target = value
		case 3:
			key = data
		case 7:
			g.operand = int64(n.value(data))
		case 64:
			end = data
		default:
			g.operand = int64(value)
		}
		return nil
	})
	g.first, g.end, _ = n.span(key, end)
	if g.result > 3 || g.target > 4 || (g.target == 3 && (g.result == 1 || g.result == 2)) {
		return g, fmt.Errorf("a comparison that this peer does not judge")
	}
	return g, err
}

// response decodes the answer to a.
func (n *names) response(a *action, message []byte) (*answer, error) {
	told := &answer{}
	err := fields(message, func(number int, value uint64, data []byte) error {
		switch {
		case number == 1:
			return fields(data, func(number int, value uint64, _ []byte) error {
				if number == 3 {
					told.revision = int64(value)
				}
				return nil
			})
		case a.kind == rangeOf && number == 2:
			kv, err := n.shown(data)
			told.kvs = append(told.kvs, kv)
			return err
		case a.kind == rangeOf && number == 4:
			told.count = int64(value)
		case a.kind == deleteRange && number == 2:
			told.deleted = int64(value)
		case a.kind == txn && number == 2:
			told.succeeded = value != 0
		}
		return nil
	})
	if err != nil || a.kind != txn {
		return told, err
	}
	branch := a.failure
	if told.succeeded {
		branch = a.success
	}
	err = fields(message, func(number int, _ uint64, data []byte) error {
		if number != 3 || len(told.inner) == len(branch) {
			return nil
		}
		inner := branch[len(told.inner)]
		return fields(data, func(_ int, _ uint64, data []byte) error {
			answer, err := n.response(inner, data)
			told.inner = append(told.inner, answer)
			return err
		})
	})
	return told, err
}

func (n *names) shown(message []byte) (kv shown, err error) {
	var value []byte
	kv.key = -1
	err = fields(message, func(number int, v uint64, data []byte) error {
		switch number {
		case 1:
			if key, known := n.keys[string(data)]; known {
				kv.key = key
			}
		case 2:
			kv.create = int64(v)
		case 3:
			kv.mod = int64(v)
		case 4:
			kv.version = int64(v)
		case 5:
			value = data
		}
		return nil
	})
	kv.value = n.value(value)
	return kv, err
}
