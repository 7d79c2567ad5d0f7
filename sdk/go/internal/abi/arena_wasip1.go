// Package abi passes values between Go and the host, as the canonical ABI of the component model
// lays them out in memory.
//
// # Memory that the host asks for
//
// The host calls the export cabi_realloc to place a list or a string in the guest. It does so while
// it enters an export and while it leaves an import. In both moments the guest must not call the
// host. A Go function must not be used for that: entering it runs Go's scheduler and its memory
// manager, which read the clock, and reading the clock is a call of the host. It could also run
// other goroutines. Therefore the command hostlerbuild adds cabi_realloc to the module as a function
// that runs no Go code (see internal/module/realloc.go). It takes memory from the arena of this
// file. If the arena is full, it gets a larger one from the end of the memory, as runtime.sbrk does.
//
// Values are copied from the arena into Go's memory before anything else can use the arena. Go's
// collector does not look into the arena and does not need to: it holds no references.
//
// # Memory that Go passes
//
// Arguments of imports are in Go's memory. Go's collector does not move objects, and stacks do not
// move during an import, because no Go code runs. What a function exports returns is kept by
// variables of this package until the next call; there is no cabi_post function, because it may not
// run Go code either.
package abi

import (
	"sync"
	"unsafe"
)

const arenaBytes = 256 << 10

// The layout is known to internal/module, which finds the arena by its first 16 bytes and sets
// next, end, start and limit. The first allocations are those of the WASI adapter, before this
// package is initialized.
var arena = struct {
	magic [16]byte
	// size is that of buffer.
	size uint32
	// next is where the free memory begins, end where it ends.
	next, end uint32
	// start and limit are the bounds of the arena. They differ from the range of free memory while
	// the host reads into a slice.
	start, limit uint32
	// bloc and blocMax are the addresses of the variables of runtime.sbrk.
	bloc, blocMax uint32
	_             uint32
	buffer        [arenaBytes]byte
}{
	magic: [16]byte{'h', 'o', 's', 't', 'l', 'e', 'r', '-', 'a', 'r', 'e', 'n', 'a', '-', '0', '1'},
	size:  arenaBytes, next: ^uint32(0), end: ^uint32(0), start: ^uint32(0), limit: ^uint32(0),
	bloc: ^uint32(0), blocMax: ^uint32(0),
}

//go:linkname bloc runtime.bloc
var bloc uintptr

//go:linkname blocMax runtime.blocMax
var blocMax uintptr

func init() {
	// What was allocated until now belongs to the adapter for ever.
	arena.next = (arena.next + 15) &^ 15
	arena.start = arena.next
	arena.bloc = address(unsafe.Pointer(&bloc))
	arena.blocMax = address(unsafe.Pointer(&blocMax))
}

// mu is held from an import until its results have been copied, so that no other goroutine uses the
// arena or the return area meanwhile.
var mu sync.Mutex

// Import is an import that is in progress.
type Import struct {
	next, end, start uint32
}

// Begin begins an import. End must follow when the results have been copied.
func Begin() Import {
	mu.Lock()
	return Import{arena.next, arena.end, arena.start}
}

// End ends an import and frees what it has allocated.
func (i Import) End() {
	if arena.start == i.start {
		arena.next, arena.end = i.next, i.end
	} else {
		// The arena was full. What the old one holds is below the new one.
		arena.next, arena.end = arena.start, arena.limit
	}
	clear(kept)
	kept = kept[:0]
	mu.Unlock()
}

// Into makes the host place the next list in this slice, if it fits. The caller keeps the slice
// alive.
func Into(data []byte) {
	if len(data) == 0 {
		return
	}
	arena.next = address(unsafe.Pointer(unsafe.SliceData(data)))
	arena.end = arena.next + uint32(len(data))
}

// Arguments begins the copy of the arguments of an export.
func Arguments() {
	mu.Lock()
}

// EndArguments ends the copy of the arguments of an export, and frees them.
func EndArguments() {
	arena.next, arena.end = arena.start, arena.limit
	mu.Unlock()
}

// ArenaBytes returns the size of the arena, for tests.
func ArenaBytes() int {
	return int(arena.limit - arena.start)
}
