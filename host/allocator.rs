//! The memory allocator of the program.
//!
//! Requests are allocated on the threads of connections and freed on workers, which is slow with
//! glibc's allocator. The crate `mimalloc` asks for an alignment in every allocation. Where no free
//! block of the size is at hand, mimalloc then makes the block larger, although it aligns blocks to
//! 16 bytes anyway. Here, an alignment is asked for only where it is not met anyway.

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};
use std::alloc::{GlobalAlloc, Layout};

/// mimalloc aligns blocks of this size or more to it (`MI_MAX_ALIGN_SIZE`).
const ALIGNMENT: usize = 16;

/// mimalloc, for `#[global_allocator]`.
pub struct Allocator;

/// Whether every block of this size has this alignment.
fn is_aligned(size: usize, align: usize) -> bool {
    align <= ALIGNMENT && align <= size
}

// SAFETY: each function is that of mimalloc with the same contract. Blocks have the alignment of
// their layout, by `is_aligned` or because it was asked for, and `mi_free` and `mi_realloc` take
// blocks of either kind.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: `align` is a power of two.
        unsafe { if is_aligned(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) } }
            .cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: `align` is a power of two.
        unsafe { if is_aligned(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } }
            .cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block is one of this allocator.
        unsafe { mi_free(block.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the block is one of this allocator, and `align` is a power of two.
        unsafe {
            if is_aligned(size, align) {
                mi_realloc(block.cast(), size)
            } else {
                mi_realloc_aligned(block.cast(), size, align)
            }
        }
        .cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_alignment_of_their_layout() {
        for align in (0..13).map(|power| 1_usize << power) {
            for size in (1..600).chain([1024, 4095, 65_537, 1 << 20]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the layout has a size, and the blocks are freed once.
                unsafe {
                    let block = Allocator.alloc(layout);
                    assert_eq!(block as usize % align, 0, "{layout:?}");
                    block.write_bytes(7, size);
                    let larger = Allocator.realloc(block, layout, size * 3);
                    assert_eq!(larger as usize % align, 0, "{layout:?}");
                    assert_eq!(*larger.add(size - 1), 7);
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert_eq!(zeroed as usize % align, 0, "{layout:?}");
                    assert!((0..size).all(|at| *zeroed.add(at) == 0));
                    Allocator.dealloc(zeroed, layout);
                    Allocator.dealloc(larger, Layout::from_size_align(size * 3, align).unwrap());
                }
            }
        }
    }
}
