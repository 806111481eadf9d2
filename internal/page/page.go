// Package page is the look of our pages for a browser, light and dark.
package page

import (
	_ "embed"
	"html/template"
)

//go:embed style.css
var style string

// Style is the pages' style sheet. It loads nothing.
func Style() template.CSS { return template.CSS(style) }
