// Package page is how our pages for a browser look, in light and in dark.
package page

import (
	_ "embed"
	"html/template"
)

//go:embed style.css
var style string

// Style is the style sheet of a page, which loads nothing.
func Style() template.CSS { return template.CSS(style) }
