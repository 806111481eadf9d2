// Package reason is the form that lists of reasons share.
//
// A reason says what became of a frame. It is a number of its package's own type, with a short
// name ("no-sa") and a sentence. It is not an error, since nobody can mend it. Two packages may
// use one short name for different things. So a name that stands by itself, as in a log, says
// whose it is ("transport/no-sa"); where a document, a table or a format already says so, the
// short name is enough.
package reason

import "fmt"

// Text is a reason in words: the short name, in lower case with hyphens, and the sentence.
type Text [2]string

// List has the texts of all reasons of type R.
type List[R ~uint8 | ~uint16] struct {
	owner string
	texts []Text
}

// New makes a List of texts by number; unused numbers have none. Qualified names begin with the
// owner's.
func New[R ~uint8 | ~uint16](owner string, texts []Text) List[R] { return List[R]{owner, texts} }

// All lists the reasons by number.
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

// Qualified is the owner, a slash, and the short name.
func (l *List[R]) Qualified(r R) string { return l.owner + "/" + l.Name(r) }

func (l *List[R]) text(r R) Text {
	if int(r) < len(l.texts) && l.texts[r] != (Text{}) {
		return l.texts[r]
	}
	return Text{fmt.Sprintf("reason-%d", r), fmt.Sprintf("reason %d, which this version does not know", r)}
}
