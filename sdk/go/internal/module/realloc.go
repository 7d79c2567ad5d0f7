package module

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The head of the arena in sdk/go/internal/abi/arena_wasip1.go, as offsets from its address.
const (
	atSize    = 16
	atNext    = 20
	atEnd     = 24
	atStart   = 28
	atLimit   = 32
	atBloc    = 36
	atBlocMax = 40
	atHeadEnd = 44
	atBuffer  = 48
)

var magic = []byte("hostler-arena-01")

// The instructions that cabi_realloc consists of.
const (
	opUnreachable = 0x00
	opIf          = 0x04
	opEnd         = 0x0b
	opReturn      = 0x0f
	opLocalGet    = 0x20
	opLocalSet    = 0x21
	opLocalTee    = 0x22
	opI32Load     = 0x28
	opI32Store    = 0x36
	opMemoryGrow  = 0x40
	opI32Const    = 0x41
	opI32Eqz      = 0x45
	opI32Eq       = 0x46
	opI32LtU      = 0x49
	opI32GtU      = 0x4b
	opI32LeU      = 0x4d
	opI32GeU      = 0x4f
	opI32Add      = 0x6a
	opI32Sub      = 0x6b
	opI32And      = 0x71
	opI32Or       = 0x72
	opI32ShrU     = 0x76
	opPrefix      = 0xfc
	opMemoryCopy  = 0x0a
	typeI32       = 0x7f
	typeNone      = 0x40
)

// The parameters and the local variables of cabi_realloc.
const (
	oldAddress = iota
	oldBytes
	align
	newBytes
	result
	bytesNeeded
	base
)

const pageBytes = 64 << 10

// AddRealloc adds the export cabi_realloc to a module that Go has linked. It takes memory from the
// arena that is in the module's data. In Go:
//
//	result = alignUp(arena.next, align)
//	if result < arena.next || result+newBytes < result || result+newBytes > arena.end {
//		// A larger arena, from the end of the memory.
//		need := arena.limit - arena.start + (arena.limit-arena.start)>>1
//		need = max(need, arena.limit - arena.start + newBytes + align) rounded up to pages
//		base := *arena.bloc
//		if base+need > *arena.blocMax {
//			memory.grow(...) or trap
//			*arena.blocMax = base+need
//		}
//		*arena.bloc = base+need
//		arena.start, arena.limit, arena.end = base, base+need, base+need
//		result = base // a page is aligned
//	}
//	arena.next = result+newBytes
//	copy(result, oldAddress[:min(oldBytes, newBytes)])
func AddRealloc(module []byte) ([]byte, error) {
	sections, err := parse(module)
	if err != nil {
		return nil, err
	}
	data, err := find(sections, dataSection)
	if err != nil {
		return nil, err
	}
	arena, err := prepareArena(data.content)
	if err != nil {
		return nil, err
	}
	types, err := find(sections, typeSection)
	if err != nil {
		return nil, err
	}
	imports, err := find(sections, importSection)
	if err != nil {
		return nil, err
	}
	functions, err := find(sections, functionSection)
	if err != nil {
		return nil, err
	}
	exported, err := find(sections, exportSection)
	if err != nil {
		return nil, err
	}
	code, err := find(sections, codeSection)
	if err != nil {
		return nil, err
	}
	signature := []byte{0x60, 4, typeI32, typeI32, typeI32, typeI32, 1, typeI32}
	var kind, own uint32
	types.content, kind = added(types.content, signature)
	functions.content, own = added(functions.content, appendNumber(nil, kind))
	index := uint32(len(functionImports(imports.content))) + own
	export := append(appendText(nil, "cabi_realloc"), 0)
	exported.content, _ = added(exported.content, appendNumber(export, index))
	body := reallocBody(arena)
	code.content, _ = added(code.content, append(appendNumber(nil, uint32(len(body))), body...))
	return encode(sections), nil
}

// prepareArena finds the arena in the data, writes the bounds of its buffer into it, and returns its
// address.
func prepareArena(content []byte) (uint32, error) {
	at := bytes.Index(content, magic)
	if at < 0 {
		return 0, errors.New("it does not use the package hostler: import a package such as hostler/model, and call its Export in init")
	}
	if bytes.Contains(content[at+1:], magic) {
		return 0, errors.New("its data has the head of the arena twice")
	}
	all, err := segments(content)
	if err != nil {
		return 0, err
	}
	for _, s := range all {
		if uint32(at) < s.offset || uint32(at)+atHeadEnd > s.offset+s.length {
			continue
		}
		address := s.address + uint32(at) - s.offset
		size := binary.LittleEndian.Uint32(content[at+atSize:])
		start := address + atBuffer
		for offset, value := range map[int]uint32{
			atNext: start, atStart: start, atEnd: start + size, atLimit: start + size, atBloc: 0, atBlocMax: 0,
		} {
			binary.LittleEndian.PutUint32(content[at+offset:], value)
		}
		return address, nil
	}
	return 0, fmt.Errorf("the head of the arena at %d is not in one segment of data", at)
}

// reallocBody returns the code of cabi_realloc for the arena at an address.
func reallocBody(arena uint32) []byte {
	c := &coder{arena: arena}
	c.code = append(c.code, 1, 3, typeI32) // three local variables
	// result = (next + align - 1) & -align
	c.field(atNext).get(align).op(opI32Add).constant(1).op(opI32Sub)
	c.constant(0).get(align).op(opI32Sub).op(opI32And).tee(result)
	// if result < next || result + newBytes < result || result + newBytes > end
	c.field(atNext).op(opI32LtU)
	c.get(result).get(newBytes).op(opI32Add).get(result).op(opI32LtU).op(opI32Or)
	c.get(result).get(newBytes).op(opI32Add).field(atEnd).op(opI32GtU).op(opI32Or)
	c.op(opIf, typeNone)
	{
		// Sizes that cannot be, and calls before the package is initialized.
		c.get(newBytes).constant(1 << 30).op(opI32GeU).field(atBloc).op(opI32Eqz).op(opI32Or)
		c.op(opIf, typeNone, opUnreachable, opEnd)
		// base is the capacity so far.
		c.field(atLimit).field(atStart).op(opI32Sub).set(base)
		c.get(base).get(newBytes).op(opI32Add).get(align).op(opI32Add).set(bytesNeeded)
		c.get(base).get(base).constant(1).op(opI32ShrU).op(opI32Add).get(bytesNeeded).op(opI32GtU)
		c.op(opIf, typeNone)
		c.get(base).get(base).constant(1).op(opI32ShrU).op(opI32Add).set(bytesNeeded)
		c.op(opEnd)
		c.get(bytesNeeded).constant(pageBytes - 1).op(opI32Add).constant(-pageBytes).op(opI32And).set(bytesNeeded)
		c.field(atBloc).load().tee(base)
		// if base + bytesNeeded > *blocMax
		c.get(bytesNeeded).op(opI32Add).field(atBlocMax).load().op(opI32GtU)
		c.op(opIf, typeNone)
		c.get(base).get(bytesNeeded).op(opI32Add).field(atBlocMax).load().op(opI32Sub)
		c.constant(16).op(opI32ShrU).op(opMemoryGrow, 0).constant(-1).op(opI32Eq)
		c.op(opIf, typeNone, opUnreachable, opEnd)
		c.field(atBlocMax).get(base).get(bytesNeeded).op(opI32Add).store()
		c.op(opEnd)
		c.field(atBloc).get(base).get(bytesNeeded).op(opI32Add).store()
		for _, offset := range []int{atLimit, atEnd} {
			c.address(offset).get(base).get(bytesNeeded).op(opI32Add).store()
		}
		c.address(atStart).get(base).store()
		c.get(base).set(result)
	}
	c.op(opEnd)
	c.address(atNext).get(result).get(newBytes).op(opI32Add).store()
	// An allocation that is there already becomes larger.
	c.get(oldBytes).op(opIf, typeNone)
	c.get(oldBytes).get(newBytes).op(opI32GtU).op(opIf, typeNone).get(newBytes).set(oldBytes).op(opEnd)
	c.get(result).get(oldAddress).get(oldBytes).op(opPrefix, opMemoryCopy, 0, 0)
	c.op(opEnd)
	c.get(result).op(opEnd)
	return c.code
}

// coder writes instructions.
type coder struct {
	arena uint32
	code  []byte
}

func (c *coder) op(ops ...byte) *coder {
	c.code = append(c.code, ops...)
	return c
}

func (c *coder) get(local uint32) *coder {
	c.code = appendNumber(append(c.code, opLocalGet), local)
	return c
}

func (c *coder) set(local uint32) *coder {
	c.code = appendNumber(append(c.code, opLocalSet), local)
	return c
}

func (c *coder) tee(local uint32) *coder {
	c.code = appendNumber(append(c.code, opLocalTee), local)
	return c
}

func (c *coder) constant(value int32) *coder {
	c.code = appendSigned(append(c.code, opI32Const), value)
	return c
}

// address pushes the address of a field of the arena.
func (c *coder) address(offset int) *coder {
	return c.constant(int32(c.arena + uint32(offset)))
}

// field pushes a field of the arena.
func (c *coder) field(offset int) *coder {
	return c.address(offset).load()
}

// load replaces an address by the 32 bits that are there.
func (c *coder) load() *coder {
	return c.op(opI32Load, 2, 0)
}

// store takes an address and 32 bits.
func (c *coder) store() *coder {
	return c.op(opI32Store, 2, 0)
}
