package main

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// fields walks over the fields of an encoded protobuf message: number, varint, bytes. Field numbers below are those of
// src/pekan/wire/proto/pekan_record.proto and of etcd's rpc.proto and kv.proto.
func fields(message []byte, each func(number int, value uint64, data []byte) error) error {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return errors.New("a broken tag")
		}
		message = message[n:]
		var value uint64
		var data []byte
		switch tag & 7 {
		case 0:
			if value, n = binary.Uvarint(message); n <= 0 {
				return errors.New("a broken number")
			}
		case 1:
			if n = 8; len(message) < n {
				return errors.New("a number is cut")
			}
			value = binary.LittleEndian.Uint64(message)
		case 2:
			length, m := binary.Uvarint(message)
			if m <= 0 || length > uint64(len(message)-m) {
				return errors.New("a field is cut")
			}
			n = m + int(length)
			data = message[m:n]
		case 5:
			if n = 4; len(message) < n {
				return errors.New("a number is cut")
			}
			value = uint64(binary.LittleEndian.Uint32(message))
		default:
			return fmt.Errorf("wire type %d", tag&7)
		}
		message = message[n:]
		if err := each(int(tag>>3), value, data); err != nil {
			return err
		}
	}
	return nil
}

// rpc is one unary call of a recorded run.
type rpc struct {
	process    int
	method     string
	request    []byte
	response   []byte
	code       uint64
	start, end int64
	answered   bool
}

// readRecords gives the unary calls of a history.pb, in order of call. Streams, faults and marks are passed over.
func readRecords(data []byte) ([]rpc, error) {
	var calls []rpc
	open := map[uint64]int{}
	for at := 0; at < len(data); {
		length, n := binary.Uvarint(data[at:])
		if n <= 0 || length > uint64(len(data)-at-n) {
			return nil, fmt.Errorf("byte %d: the record is cut", at)
		}
		at += n
		var time int64
		err := fields(data[at:at+int(length)], func(number int, value uint64, body []byte) error {
			switch number {
			case 1:
				time = int64(value)
			case 2:
				made := rpc{start: time, end: never}
				var operation uint64
				err := fields(body, func(number int, value uint64, data []byte) error {
					switch number {
					case 1:
						operation = value
					case 2:
						made.process = int(value)
					case 5:
						made.method = string(data)
					case 6:
						made.request = data
					}
					return nil
				})
				open[operation] = len(calls)
				calls = append(calls, made)
				return err
			case 3:
				var operation uint64
				done := rpc{}
				err := fields(body, func(number int, value uint64, data []byte) error {
					switch number {
					case 1:
						operation = value
					case 2:
						done.response = data
					case 3:
						done.code = value
					}
					return nil
				})
				number, known := open[operation]
				if !known {
					return fmt.Errorf("operation %d completes and was never invoked", operation)
				}
				delete(open, operation)
				calls[number].response, calls[number].code = done.response, done.code
				calls[number].end, calls[number].answered = time, true
				return err
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("the record at byte %d: %w", at, err)
		}
		at += int(length)
	}
	return calls, nil
}
