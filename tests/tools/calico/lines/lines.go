// Package lines answers questions in JSON, one on a line of standard input, with one line of standard output each.
package lines

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/sirupsen/logrus"
)

// Answer judges each question until there are no more. It ends the program if one cannot be read or judged, and says why. What
// Calico's packages log is not shown.
func Answer[Q, A any](judge func(Q) (A, error)) {
	logrus.SetLevel(logrus.FatalLevel)
	if err := answer(judge); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answer[Q, A any](judge func(Q) (A, error)) error {
	questions := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for questions.More() {
		var q Q
		if err := questions.Decode(&q); err != nil {
			return err
		}
		a, err := judge(q)
		if err != nil {
			return err
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
	return out.Flush()
}
