//! Keeps the host alive when native code of ONNX Runtime divides the smallest integer by -1, or an
//! integer by 0.
//!
//! x86 raises SIGFPE for both, which ends the process. Kernels check for 0 but not for the overflow
//! (`Div` and `Mod` of INT32 and INT64), so one request could end the host. The handler completes
//! the instruction as other architectures do: the quotient wraps around and the remainder is 0. A
//! division by 0 results in 0, and its run fails. Faults of other code, including WebAssembly, are
//! passed to the handler that was installed before.

/// The numbers of divisions by zero completed so far on this thread, and on all threads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Zeros {
    pub thread: u64,
    pub process: u64,
}

impl Zeros {
    /// Returns true if a run on this thread has divided by zero since. If the run has other
    /// threads, they cannot be told apart from those of other models, so it may fail because of a
    /// concurrent run: an error too many, but never a wrong result.
    pub fn have_changed(self, threads: usize) -> bool {
        let now = zeros();
        if threads == 1 { now.thread != self.thread } else { now.process != self.process }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(super) use x86::{install, zeros};

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(super) fn install() {}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(super) fn zeros() -> Zeros {
    Zeros { thread: 0, process: 0 }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod x86 {
    use super::Zeros;
    use std::cell::Cell;
    use std::ops::Range;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The beginning of the file name of ONNX Runtime's library.
    const LIBRARY: &[u8] = b"libonnxruntime";

    struct Installed {
        /// The addresses of the library's code.
        code: Vec<Range<usize>>,
        previous: libc::sigaction,
    }

    static INSTALLED: OnceLock<Installed> = OnceLock::new();

    static ZEROS: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static ZEROS_HERE: Cell<u64> = const { Cell::new(0) };
    }

    pub fn zeros() -> Zeros {
        Zeros { thread: ZEROS_HERE.get(), process: ZEROS.load(Ordering::Acquire) }
    }

    /// Installs the handler. Must be called after the library was loaded.
    pub fn install() {
        INSTALLED.get_or_init(|| {
            // SAFETY: the handler calls only functions that are safe in a signal handler. Its state
            // is complete before it is installed, except for `INSTALLED`, without which it leaves
            // every fault to the default action.
            unsafe {
                let mut previous: libc::sigaction = std::mem::zeroed();
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_fault as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                libc::sigemptyset(&raw mut action.sa_mask);
                if libc::sigaction(libc::SIGFPE, &raw const action, &raw mut previous) != 0 {
                    let error = std::io::Error::last_os_error();
                    tracing::warn!(%error, "cannot handle SIGFPE: an integer overflow in a model ends the host");
                }
                Installed { code: code_of_library(), previous }
            }
        });
    }

    fn code_of_library() -> Vec<Range<usize>> {
        unsafe extern "C" fn collect_code(
            object: *mut libc::dl_phdr_info,
            _: usize,
            found: *mut libc::c_void,
        ) -> libc::c_int {
            // SAFETY: the loader passes a valid object, and `found` is the vector below.
            unsafe {
                let (object, found) = (&*object, &mut *found.cast::<Vec<Range<usize>>>());
                if object.dlpi_name.is_null() {
                    return 0;
                }
                let name = std::ffi::CStr::from_ptr(object.dlpi_name).to_bytes();
                if !name.windows(LIBRARY.len()).any(|part| part == LIBRARY) {
                    return 0;
                }
                let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
                let code = headers
                    .iter()
                    .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0);
                found.extend(code.map(|header| {
                    let start = object.dlpi_addr as usize + header.p_vaddr as usize;
                    start..start + header.p_memsz as usize
                }));
            }
            0
        }
        let mut found = Vec::new();
        // SAFETY: `collect_code` does not keep its arguments.
        unsafe { libc::dl_iterate_phdr(Some(collect_code), (&raw mut found).cast()) };
        found
    }

    unsafe extern "C" fn on_fault(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        let installed = INSTALLED.get();
        // SAFETY: the kernel passes a valid context, and the code at the instruction pointer was
        // just run.
        unsafe {
            let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let at = registers[libc::REG_RIP as usize] as usize;
            if installed.is_some_and(|installed| installed.code.iter().any(|code| code.contains(&at)))
                && complete(registers)
            {
                return;
            }
            match installed.map(|installed| &installed.previous) {
                Some(previous) if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                    std::mem::transmute::<usize, Handler>(previous.sa_sigaction)(signal, info, context);
                }
                Some(previous) if ![libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction) => {
                    type Handler = extern "C" fn(libc::c_int);
                    std::mem::transmute::<usize, Handler>(previous.sa_sigaction)(signal);
                }
                // The instruction faults again, which then ends the process.
                _ => {
                    libc::signal(signal, libc::SIG_DFL);
                }
            }
        }
    }

    type Registers = [libc::greg_t; 23];

    /// Completes the division at the instruction pointer. Returns false if that instruction is not
    /// a division that faults.
    unsafe fn complete(registers: &mut Registers) -> bool {
        let get = |register: libc::c_int| registers[register as usize];
        // SAFETY: `decode` reads nothing behind the end of the instruction, which the processor has
        // just read.
        let Some(division) = (unsafe { decode(get(libc::REG_RIP) as *const u8) }) else { return false };
        let (low, high) = (get(libc::REG_RAX), get(libc::REG_RDX));
        // SAFETY: the instruction has just read this operand.
        let Some(divisor) = (unsafe { division.divisor(registers) }) else { return false };
        let (quotient, remainder) = match (division.bits, divisor) {
            (_, 0) => {
                ZEROS_HERE.set(ZEROS_HERE.get() + 1);
                ZEROS.fetch_add(1, Ordering::AcqRel);
                (0, low)
            }
            // Only the smallest integer divided by -1 has a quotient that does not fit.
            (32, -1) if division.signed && low as i32 == i32::MIN && high as i32 == -1 => (low, 0),
            (64, -1) if division.signed && low == i64::MIN && high == -1 => (low, 0),
            _ => return false,
        };
        let keep = |value: i64| if division.bits == 32 { value & 0xffff_ffff } else { value };
        registers[libc::REG_RAX as usize] = keep(quotient);
        registers[libc::REG_RDX as usize] = keep(remainder);
        registers[libc::REG_RIP as usize] += division.length as i64;
        true
    }

    /// A `div` or `idiv` of 32 or 64 bits. Compilers widen smaller operands.
    #[derive(Debug, PartialEq)]
    struct Division {
        signed: bool,
        bits: u8,
        length: usize,
        operand: Operand,
    }

    #[derive(Debug, PartialEq)]
    enum Operand {
        /// The number of a register in the encoding of instructions.
        Register(u8),
        Memory {
            base: Option<u8>,
            index: Option<(u8, u8)>,
            offset: i32,
            relative: bool,
        },
    }

    impl Division {
        unsafe fn divisor(&self, registers: &Registers) -> Option<i64> {
            let value = |register: u8| registers[ORDER[register as usize] as usize];
            let raw = match self.operand {
                Operand::Register(register) => value(register),
                Operand::Memory { base, index, offset, relative } => {
                    let mut address = i64::from(offset);
                    if relative {
                        address += registers[libc::REG_RIP as usize] + self.length as i64;
                    }
                    address = address.wrapping_add(base.map_or(0, value));
                    if let Some((register, scale)) = index {
                        address = address.wrapping_add(value(register) << scale);
                    }
                    // SAFETY: the processor has just read from this address.
                    unsafe {
                        match self.bits {
                            32 => i64::from((address as *const i32).read_unaligned()),
                            _ => (address as *const i64).read_unaligned(),
                        }
                    }
                }
            };
            Some(if self.bits == 32 { i64::from(raw as i32) } else { raw })
        }
    }

    /// Registers, by their number in the encoding of instructions.
    const ORDER: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];

    unsafe fn decode(code: *const u8) -> Option<Division> {
        let mut length = 0;
        // SAFETY: the caller guarantees that the instruction is readable, and nothing behind it is
        // read.
        let mut next = || unsafe {
            let byte = code.add(length).read();
            length += 1;
            byte
        };
        let mut byte = next();
        let mut rex = 0;
        if byte & 0xf0 == 0x40 {
            rex = byte;
            byte = next();
        }
        if byte != 0xf7 {
            return None;
        }
        let bits = if rex & 8 != 0 { 64 } else { 32 };
        let modrm = next();
        let (mode, operation, place) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        let signed = match operation {
            6 => false,
            7 => true,
            _ => return None,
        };
        let (rex_b, rex_x) = ((rex & 1) << 3, (rex & 2) << 2);
        if mode == 3 {
            let operand = Operand::Register(place | rex_b);
            return Some(Division { signed, bits, length, operand });
        }
        let (mut base, mut index) = (Some(place | rex_b), None);
        let mut relative = false;
        let mut wide = mode == 2;
        if place == 4 {
            let sib = next();
            let (scale, of, on) = (sib >> 6, sib >> 3 & 7 | rex_x, sib & 7);
            index = (of != 4).then_some((of, scale));
            base = Some(on | rex_b);
            if on == 5 && mode == 0 {
                (base, wide) = (None, true);
            }
        } else if place == 5 && mode == 0 {
            (base, relative, wide) = (None, true, true);
        }
        let offset = match (mode, wide) {
            (_, true) => i32::from_le_bytes([next(), next(), next(), next()]),
            (1, _) => i32::from(next() as i8),
            _ => 0,
        };
        Some(Division { signed, bits, length, operand: Operand::Memory { base, index, offset, relative } })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn decoded(code: &[u8]) -> Option<Division> {
            let mut padded = code.to_vec();
            padded.resize(16, 0x90);
            // SAFETY: the code is padded to more than the longest instruction.
            unsafe { decode(padded.as_ptr()) }
        }

        #[test]
        fn divisions_are_read_with_their_operand_and_length() {
            let register = |bits, signed, length, register| {
                Some(Division { signed, bits, length, operand: Operand::Register(register) })
            };
            let memory = |bits, length, base, index, offset, relative| {
                let operand = Operand::Memory { base, index, offset, relative };
                Some(Division { signed: true, bits, length, operand })
            };
            for (code, expected) in [
                // idiv ecx; idiv rcx; idiv r9; div r9d
                (&[0xf7, 0xf9][..], register(32, true, 2, 1)),
                (&[0x48, 0xf7, 0xf9], register(64, true, 3, 1)),
                (&[0x49, 0xf7, 0xf9], register(64, true, 3, 9)),
                (&[0x41, 0xf7, 0xf1], register(32, false, 3, 9)),
                // idiv dword ptr [rsi + rdx*4]; idiv qword ptr [r8 + r9*8 + 16]
                (&[0xf7, 0x3c, 0x96], memory(32, 3, Some(6), Some((2, 2)), 0, false)),
                (&[0x4b, 0xf7, 0x7c, 0xc8, 0x10], memory(64, 5, Some(8), Some((9, 3)), 16, false)),
                // idiv dword ptr [rbp - 4]; idiv dword ptr [rip + 256]; idiv dword ptr [rsp + 512]
                (&[0xf7, 0x7d, 0xfc], memory(32, 3, Some(5), None, -4, false)),
                (&[0xf7, 0x3d, 0, 1, 0, 0], memory(32, 6, None, None, 256, true)),
                (&[0xf7, 0xbc, 0x24, 0, 2, 0, 0], memory(32, 7, Some(4), None, 512, false)),
                // not rcx; add eax, ecx
                (&[0x48, 0xf7, 0xd1], None),
                (&[0x01, 0xc8], None),
            ] {
                assert_eq!(decoded(code), expected, "{code:x?}");
            }
        }

        #[test]
        fn the_smallest_number_by_minus_one_wraps_and_by_zero_is_counted() {
            let code = [0x48_u8, 0xf7, 0xf9, 0x90, 0x90, 0x90, 0x90, 0x90];
            let run = |dividend: i64, divisor: i64| {
                let mut registers: Registers = [0; 23];
                registers[libc::REG_RIP as usize] = code.as_ptr() as i64;
                registers[libc::REG_RAX as usize] = dividend;
                registers[libc::REG_RDX as usize] = dividend >> 63;
                registers[libc::REG_RCX as usize] = divisor;
                // SAFETY: the code is readable, and has no operand in memory.
                let done = unsafe { complete(&mut registers) };
                let moved = registers[libc::REG_RIP as usize] - code.as_ptr() as i64;
                (done, registers[libc::REG_RAX as usize], registers[libc::REG_RDX as usize], moved)
            };
            assert_eq!(run(i64::MIN, -1), (true, i64::MIN, 0, 3));
            let before = zeros();
            assert_eq!(run(7, 0), (true, 0, 7, 3));
            assert_eq!(zeros().thread, before.thread + 1);
            assert!(!run(7, 2).0, "that does not fault");
        }
    }
}
