// Package reason is the form that lists of reasons share.
//
// A reason says what became of a frame. It is a number of its package's own type,
// has a short name ("no-sa") and a sentence, and is no error: nobody can mend it.
// Two packages may use one short name for two things, so where a name stands alone
// outside of the process, as in a log, it says whose it is ("transport/no-sa");
// where a document, a table or a format says so, it is the short one.
package reason

import "fmt"

// Text is what people read of a reason: the short name, of lower case and
// hyphens, and the sentence.
type Text [2]string

// List is what people read of all reasons of type R.
type List[R ~uint8 | ~uint16] struct {
	owner string
	texts []Text
}

// New makes a List of texts by number, where numbers that mean nothing have none.
// The owner stands in front of qualified names.
func New[R ~uint8 | ~uint16](owner string, texts []Text) List[R] { return List[R]{owner, texts} }

// All lists the reasons in the order of their numbers.
func (l *List[R]) All() []R {
	var all []R
	for i, text := range l.texts {
		if text != (Text{}) {
			all = append(all, R(i))
		}
	}
	return all
}

// Name is the short name.
func (l *List[R]) Name(r R) string { return l.text(r)[0] }

// Sentence is the sentence.
func (l *List[R]) Sentence(r R) string { return l.text(r)[1] }

// Qualified is the short name after the owner's and a slash.
func (l *List[R]) Qualified(r R) string { return l.owner + "/" + l.Name(r) }

func (l *List[R]) text(r R) Text {
	if int(r) < len(l.texts) && l.texts[r] != (Text{}) {
		return l.texts[r]
	}
	return Text{fmt.Sprintf("reason-%d", r), fmt.Sprintf("reason %d, which this version does not know", r)}
}
