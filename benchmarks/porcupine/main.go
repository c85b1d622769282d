// The peer of Pekan's benchmarks: Porcupine on the same files, with models that do what a careful user of it would do.
//
//	porcupine-peer --model etcd --timeout 60s history.pb      a run that Pekan recorded
//	porcupine-peer --model register history.edn               Jepsen's EDN, one map an operation
//	porcupine-peer --model stack history.jsonl                Pekan's JSON Lines
//
// Each model defines Hash, shares what does not change between states, and divides into keys what can be divided. One line of JSON a file:
// operations, how many of them nobody saw answered, CPU seconds of reading and of checking, and the answer (ok, illegal, unknown where the
// time ran out).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/anishathalye/porcupine"
)

// result is what is told of one file.
type result struct {
	File       string  `json:"file"`
	Operations int     `json:"operations"`
	Unanswered int     `json:"unanswered"`
	ReadS      float64 `json:"read_s"`
	CheckS     float64 `json:"check_s"`
	Answer     string  `json:"answer"`
}

var answers = map[porcupine.CheckResult]string{porcupine.Ok: "ok", porcupine.Illegal: "illegal", porcupine.Unknown: "unknown"}

func main() {
	model := flag.String("model", "", "etcd, register, cas-register, kv-append, fifo-queue or stack")
	timeout := flag.Duration("timeout", time.Minute, "of checking one file")
	flag.Parse()
	out := json.NewEncoder(os.Stdout)
	for _, file := range flag.Args() {
		told, err := judge(file, *model, *timeout)
		if err == nil {
			err = out.Encode(told)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			os.Exit(2)
		}
	}
}

func judge(file, name string, timeout time.Duration) (result, error) {
	began := cpu()
	model, operations, err := load(file, name)
	if err != nil {
		return result{}, err
	}
	read := cpu()
	answer := porcupine.CheckOperationsTimeout(model, operations, timeout)
	checked := cpu()
	unanswered := 0
	for _, operation := range operations {
		if operation.Return == never {
			unanswered++
		}
	}
	return result{file, len(operations), unanswered, (read - began).Seconds(), (checked - read).Seconds(), answers[answer]}, nil
}

// cpu is what this process has used of the processors, so that other work on the machine is not counted.
func cpu() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func load(file, name string) (porcupine.Model, []porcupine.Operation, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return porcupine.Model{}, nil, err
	}
	if name == "etcd" {
		calls, err := readRecords(data)
		if err != nil {
			return porcupine.Model{}, nil, err
		}
		return etcdQuestion(calls)
	}
	read := readEDN
	if strings.HasSuffix(file, ".jsonl") {
		read = readJSONLines
	}
	calls, err := read(data)
	if err != nil {
		return porcupine.Model{}, nil, err
	}
	return objectQuestion(name, calls)
}
