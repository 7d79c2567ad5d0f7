// Package module reads and changes WebAssembly modules that Go has linked.
package module

import (
	"bytes"
	"errors"
	"fmt"
)

// The ids of sections of a WebAssembly module.
const (
	typeSection     = 1
	importSection   = 2
	functionSection = 3
	exportSection   = 7
	codeSection     = 10
	dataSection     = 11
)

// section is a section of a module: its id and its content.
type section struct {
	id      byte
	content []byte
}

var head = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// parse splits a module into its sections.
func parse(module []byte) ([]section, error) {
	if !bytes.HasPrefix(module, head) {
		return nil, errors.New("it is not a WebAssembly module")
	}
	r := &reader{data: module[len(head):]}
	var sections []section
	for len(r.data) > 0 {
		id := r.byte()
		content := r.bytes(int(r.number()))
		if r.failed {
			return nil, errors.New("the module ends in the middle of a section")
		}
		sections = append(sections, section{id, content})
	}
	return sections, nil
}

// encode is the inverse of parse.
func encode(sections []section) []byte {
	module := append([]byte(nil), head...)
	for _, s := range sections {
		module = append(module, s.id)
		module = appendNumber(module, uint32(len(s.content)))
		module = append(module, s.content...)
	}
	return module
}

// find returns the section with an id.
func find(sections []section, id byte) (*section, error) {
	for i := range sections {
		if sections[i].id == id {
			return &sections[i], nil
		}
	}
	return nil, fmt.Errorf("the module has no section %d", id)
}

// added returns the content of a section with one more entry, and the number of entries before it.
func added(content, entry []byte) ([]byte, uint32) {
	r := &reader{data: content}
	count := r.number()
	longer := appendNumber(nil, count+1)
	longer = append(longer, r.data...)
	return append(longer, entry...), count
}

// functionImports returns the names of the imported functions, as module and name.
func functionImports(content []byte) [][2]string {
	r := &reader{data: content}
	var names [][2]string
	for count := r.number(); count > 0 && !r.failed; count-- {
		module, name := r.text(), r.text()
		if kind := r.byte(); kind != 0 {
			// Go imports functions only.
			r.failed = true
			break
		}
		r.number()
		names = append(names, [2]string{module, name})
	}
	return names
}

// exports returns the names of what is exported.
func exports(content []byte) []string {
	r := &reader{data: content}
	var names []string
	for count := r.number(); count > 0 && !r.failed; count-- {
		names = append(names, r.text())
		r.byte()
		r.number()
	}
	return names
}

// segment is an active data segment: its address, and where its bytes are in the section.
type segment struct {
	address, offset, length uint32
}

// segments returns the segments of a data section.
func segments(content []byte) ([]segment, error) {
	r := &reader{data: content}
	var found []segment
	for count := r.number(); count > 0; count-- {
		flags := r.number()
		if flags != 0 || r.byte() != opI32Const {
			return nil, errors.New("the module has a data segment that Go does not write")
		}
		address := r.number()
		r.byte() // end
		length := r.number()
		offset := uint32(len(content) - len(r.data))
		r.bytes(int(length))
		if r.failed {
			return nil, errors.New("the data section is not complete")
		}
		found = append(found, segment{address, offset, length})
	}
	return found, nil
}

// reader reads what a module consists of. After the end, it returns zeros and has failed.
type reader struct {
	data   []byte
	failed bool
}

func (r *reader) byte() byte {
	if len(r.data) == 0 {
		r.failed = true
		return 0
	}
	value := r.data[0]
	r.data = r.data[1:]
	return value
}

func (r *reader) bytes(length int) []byte {
	if length < 0 || length > len(r.data) {
		r.failed = true
		r.data = nil
		return nil
	}
	value := r.data[:length]
	r.data = r.data[length:]
	return value
}

// number reads a LEB128 number. A negative one is returned as its 32 bits.
func (r *reader) number() uint32 {
	var value uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		value |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return uint32(value)
		}
	}
	r.failed = true
	return 0
}

func (r *reader) text() string {
	return string(r.bytes(int(r.number())))
}

func appendNumber(to []byte, value uint32) []byte {
	for value >= 0x80 {
		to = append(to, byte(value)|0x80)
		value >>= 7
	}
	return append(to, byte(value))
}

// appendSigned appends a signed LEB128 number, as constants of code have it.
func appendSigned(to []byte, value int32) []byte {
	for {
		b := byte(value & 0x7f)
		value >>= 7
		if value == 0 && b&0x40 == 0 || value == -1 && b&0x40 != 0 {
			return append(to, b)
		}
		to = append(to, b|0x80)
	}
}

func appendText(to []byte, text string) []byte {
	return append(appendNumber(to, uint32(len(text))), text...)
}
