package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
)

// keyword is an EDN keyword or symbol, without its colon.
type keyword string

// edn reads values one after the other; what Jepsen's histories need of the notation.
type edn struct {
	data []byte
	at   int
}

var errEnd = errors.New("end of the file")

func (e *edn) skip() {
	for e.at < len(e.data) {
		switch c := e.data[e.at]; {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ',':
			e.at++
		case c == ';':
			for e.at < len(e.data) && e.data[e.at] != '\n' {
				e.at++
			}
		default:
			return
		}
	}
}

func (e *edn) value() (any, error) {
	e.skip()
	if e.at >= len(e.data) {
		return nil, errEnd
	}
	switch c := e.data[e.at]; c {
	case '{':
		parts, err := e.until('}')
		if err != nil {
			return nil, err
		}
		if len(parts)%2 != 0 {
			return nil, fmt.Errorf("byte %d: a map with a key and no value", e.at)
		}
		object := map[any]any{}
		for i := 0; i < len(parts); i += 2 {
			object[parts[i]] = parts[i+1]
		}
		return object, nil
	case '[':
		return e.until(']')
	case '(':
		return e.until(')')
	case '"':
		return e.text()
	case '#':
		if e.at+1 < len(e.data) && e.data[e.at+1] == '{' {
			e.at++
			return e.until('}')
		}
		e.token() // A tag: what it marks follows.
		return e.value()
	}
	token := e.token()
	switch token {
	case "":
		return nil, fmt.Errorf("byte %d: %q is no value", e.at, e.data[e.at])
	case "nil":
		return nil, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	if number, err := strconv.ParseInt(token, 10, 64); err == nil {
		return number, nil
	}
	if token[0] == ':' {
		token = token[1:]
	}
	return keyword(token), nil
}

// until reads the values inside a bracket that has just been met.
func (e *edn) until(end byte) ([]any, error) {
	e.at++
	parts := []any{}
	for {
		e.skip()
		if e.at >= len(e.data) {
			return nil, errors.New("the file ends inside a bracket")
		}
		if e.data[e.at] == end {
			e.at++
			return parts, nil
		}
		part, err := e.value()
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
}

func (e *edn) text() (any, error) {
	end := e.at + 1
	for end < len(e.data) && e.data[end] != '"' {
		if e.data[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(e.data) {
		return nil, errors.New("the file ends inside a string")
	}
	raw := e.data[e.at : end+1]
	e.at = end + 1
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	return strconv.Unquote(string(raw))
}

func (e *edn) token() string {
	begin := e.at
	for e.at < len(e.data) && bytes.IndexByte([]byte(" \n\t\r,{}[]()\""), e.data[e.at]) < 0 {
		e.at++
	}
	return string(e.data[begin:e.at])
}

// readEDN pairs the entries of a history: invoke, then ok, fail or info of the same process. Their order is their time.
func readEDN(data []byte) ([]call, error) {
	entries := edn{data: data}
	var calls []call
	open := map[any]int{}
	failed := map[int]bool{}
	for time := int64(0); ; time++ {
		value, err := entries.value()
		if err == errEnd {
			break
		}
		if err != nil {
			return nil, err
		}
		entry, ok := value.(map[any]any)
		if !ok {
			return nil, fmt.Errorf("%v: expected a map", value)
		}
		process, ok := entry[keyword("process")].(int64)
		if !ok {
			continue // The nemesis.
		}
		kind, _ := entry[keyword("type")].(keyword)
		f, _ := entry[keyword("f")].(keyword)
		told := entry[keyword("value")]
		if kind == "invoke" {
			open[process] = len(calls)
			calls = append(calls, call{process: int(process), f: string(f), key: entry[keyword("key")], value: told, start: time, end: never})
			continue
		}
		number, known := open[process]
		if !known {
			return nil, fmt.Errorf("process %d completes what it never invoked", process)
		}
		delete(open, process)
		switch kind {
		case "ok":
			calls[number].end, calls[number].output, calls[number].answered = time, told, true
		case "fail":
			failed[number] = true
		}
	}
	return kept(calls, failed), nil
}

func kept(calls []call, failed map[int]bool) []call {
	if len(failed) == 0 {
		return calls
	}
	var rest []call
	for number, c := range calls {
		if !failed[number] {
			rest = append(rest, c)
		}
	}
	return rest
}

// jsonLine is an operation as Pekan's JSON Lines have it.
type jsonLine struct {
	Pekan   *int            `json:"pekan"`
	Mark    *string         `json:"mark"`
	Process int             `json:"process"`
	F       string          `json:"f"`
	Value   json.RawMessage `json:"value"`
	Key     json.RawMessage `json:"key"`
	Call    int64           `json:"call"`
	Return  *int64          `json:"return"`
	Outcome string          `json:"outcome"`
	Output  json.RawMessage `json:"output"`
}

func readJSONLines(data []byte) ([]call, error) {
	var calls []call
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var l jsonLine
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, err
		}
		if l.Pekan != nil || l.Mark != nil || l.Outcome == "failed" {
			continue
		}
		c := call{process: l.Process, f: l.F, start: l.Call, end: never, answered: l.Return != nil && l.Outcome != "indefinite"}
		for raw, to := range map[*json.RawMessage]*any{&l.Value: &c.value, &l.Key: &c.key, &l.Output: &c.output} {
			if *raw != nil {
				if err := json.Unmarshal(*raw, to); err != nil {
					return nil, err
				}
			}
		}
		if c.answered {
			c.end = *l.Return
		}
		calls = append(calls, c)
	}
	sort.SliceStable(calls, func(a, b int) bool { return calls[a].start < calls[b].start })
	return calls, lines.Err()
}
