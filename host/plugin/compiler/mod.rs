//! Compiles components in a separate process, which may fail in any way without harm to the host.
//!
//! The process runs this program with a hidden command (`child`). It receives the component through
//! a pipe and sends back a report and native code; the host itself reads only a component's first
//! bytes and the names of its outermost imports and exports. Exceeded limits of time and memory, a
//! process that dies and an abandoned build become errors here.

pub mod child;
pub(super) mod functions;
pub(super) mod report;

use super::artifact::{Code, CodeWriter};
use super::component_info::Interface;
use crate::cancel::Cancel;
use crate::config::CompileLimits;
use crate::error::{Error, Result, is_transient};
use crate::lock::LockUnpoisoned;
use child::CompileTask;
use report::Report;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The hidden command of this program.
pub const COMMAND: &str = "compile-plugin";

/// How often a compilation checks what no file descriptor signals: that the build was abandoned, or
/// that its time is over.
const LOOK: Duration = Duration::from_millis(10);

/// The whole environment of the process. Allocators would otherwise reserve address space per
/// thread ahead of use, which counts as used: mimalloc its arenas, and glibc's allocator, which
/// threads of the C library use, its own.
const ALLOCATORS: [(&str, &str); 2] = [("MIMALLOC_ARENA_RESERVE", "0"), ("MALLOC_ARENA_MAX", "1")];

/// The largest change of a pack of functions: all that are new, and the positions of those used.
const CHANGE_BYTES_MAX: u64 = (functions::NEW_BYTES_MAX + functions::PACK_BYTES_MAX / 2) as u64;

/// Bytes of the compiler's standard error that are kept.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// The result of compiling a component.
pub(super) struct Compiled {
    pub interface: Interface,
    pub code: Code,
    /// The change of the pack of functions; empty without one.
    pub functions: Vec<u8>,
}

/// Starts compiler processes, one at a time: each uses all threads that are meant for compiling.
pub(super) struct Compiler {
    /// The program to start; `None` for this program itself.
    program: Option<PathBuf>,
    threads: usize,
    memory_reservation: u64,
    busy: Mutex<bool>,
    free: Condvar,
}

/// A component to compile.
pub(super) struct Source<'a> {
    pub wasm: &'a [u8],
    /// Functions that may be taken over; `None` to compile all of them without keeping any.
    pub pack: Option<&'a [u8]>,
    pub concurrent: bool,
    pub limits: CompileLimits,
    pub cancel: &'a Cancel,
}

impl Compiler {
    /// `memory_reservation` is the address space of each linear memory where the code will run.
    pub fn new(program: Option<PathBuf>, threads: usize, memory_reservation: u64) -> Self {
        Compiler { program, threads, memory_reservation, busy: Mutex::new(false), free: Condvar::new() }
    }

    /// Blocks until the component is compiled, a limit is reached or the build is abandoned. The
    /// code goes to `writer`.
    pub fn compile(&self, source: &Source, writer: CodeWriter) -> Result<Compiled> {
        let _turn = self.acquire_slot(source.cancel)?;
        let limits = source.limits;
        let task = CompileTask {
            bytes: source.wasm.len(),
            pack_bytes: source.pack.map(<[u8]>::len),
            concurrent: source.concurrent,
            memory_reservation: self.memory_reservation,
            threads: self.threads,
            cpu_s: limits.cpu.as_secs().max(1),
            memory_bytes: limits.memory_bytes as u64 + functions_memory(source.pack),
            parent: std::process::id(),
        };
        let mut running = ChildProcess::start(&self.program()?, &task)?;
        let received = running.exchange(source, Receiver::new(limits, writer));
        match received {
            Ok(compiled) => Ok(compiled),
            Err(ChildEnd::Error(error)) => Err(error),
            Err(ChildEnd::Silently) => {
                let (status, stderr) = running.end();
                Err(explain(status, &stderr, limits))
            }
        }
    }

    /// Waits until no other compilation is in progress.
    fn acquire_slot(&self, cancel: &Cancel) -> Result<CompileSlot<'_>> {
        let mut busy = self.busy.lock_unpoisoned();
        while *busy {
            cancel.check()?;
            busy = self.free.wait_timeout(busy, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        cancel.check()?;
        *busy = true;
        Ok(CompileSlot(self))
    }

    fn program(&self) -> Result<PathBuf> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        // The program that is running, even if its file was replaced since.
        let running = Path::new("/proc/self/exe");
        if running.exists() {
            return Ok(running.to_owned());
        }
        use std::os::unix::ffi::OsStrExt;
        let started_as = Path::new(std::ffi::OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
        if started_as.is_absolute() && started_as.exists() {
            return Ok(started_as.to_owned());
        }
        Err(Error::failed(
            "cannot find this program's own file, which compiles plugins in a process of its own; mount /proc, or \
             start the host by an absolute path",
        ))
    }
}

/// The right to compile; released when dropped.
struct CompileSlot<'a>(&'a Compiler);

impl Drop for CompileSlot<'_> {
    fn drop(&mut self) {
        *self.0.busy.lock_unpoisoned() = false;
        self.0.free.notify_one();
    }
}

enum ChildEnd {
    /// The process ended before it had sent everything; its exit status says why.
    Silently,
    Error(Error),
}

impl From<Error> for ChildEnd {
    fn from(error: Error) -> Self {
        ChildEnd::Error(error)
    }
}

/// A compiler process. Dropping it kills the process.
struct ChildProcess {
    child: Child,
    stderr: Vec<u8>,
}

impl ChildProcess {
    fn start(program: &Path, task: &CompileTask) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .arg0("hostler")
            .arg(COMMAND)
            .args(["--bytes", &task.bytes.to_string(), "--threads", &task.threads.to_string()])
            .args(task.pack_bytes.map(|bytes| format!("--pack-bytes={bytes}")))
            .args(["--cpu-s", &task.cpu_s.to_string(), "--memory-bytes", &task.memory_bytes.to_string()])
            .args(["--memory-reservation", &task.memory_reservation.to_string()])
            .args(["--parent", &task.parent.to_string()])
            .args(task.concurrent.then_some("--concurrent"))
            .env_clear()
            .envs(ALLOCATORS)
            // Ctrl-C in a terminal must reach only the host.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| {
            let message = format!("cannot start the compiler process {}: {error}", program.display());
            match is_transient(&error) {
                true => Error::unavailable(message).transient(),
                false => Error::failed(format!("{message}; plugins are compiled in a process of their own")),
            }
        })?;
        Ok(ChildProcess { child, stderr: Vec::new() })
    }

    /// Sends the component and receives the result.
    fn exchange(&mut self, source: &Source, mut receiver: Receiver) -> Result<Compiled, ChildEnd> {
        let pipe = |error: std::io::Error| Error::failed(format!("a pipe to the compiler process: {error}"));
        let mut stdin = self.child.stdin.take();
        let mut stdout = self.child.stdout.take().expect("invariant: piped");
        let mut stderr = self.child.stderr.take();
        for end in [stdin.as_ref().map(AsFd::as_fd), Some(stdout.as_fd()), stderr.as_ref().map(AsFd::as_fd)] {
            let end = end.expect("invariant: piped");
            rustix::io::ioctl_fionbio(end, true).map_err(|error| pipe(error.into()))?;
        }
        let mut unsent = source.wasm;
        let mut unsent_pack = source.pack.unwrap_or_default();
        let wall = source.limits.wall();
        let until = Instant::now() + wall;
        let mut buffer = vec![0; 64 << 10];
        loop {
            source.cancel.check()?;
            if Instant::now() >= until {
                return Err(out_of_wall_time(wall).into());
            }
            let mut ends = vec![PollFd::new(&stdout, PollFlags::IN)];
            ends.extend(stdin.as_ref().map(|end| PollFd::new(end, PollFlags::OUT)));
            ends.extend(stderr.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
            let tick = Timespec::try_from(LOOK).expect("invariant: a short time");
            match poll(&mut ends, Some(&tick)) {
                Err(error) if error != rustix::io::Errno::INTR => return Err(pipe(error.into()).into()),
                _ => {}
            }
            if let Some(end) = &mut stdin {
                match end.write(unsent) {
                    Ok(sent) => unsent = &unsent[sent..],
                    Err(error) if is_early(&error) => {}
                    // The process has ended or stopped reading; what it sends says why.
                    Err(_) => (unsent, unsent_pack) = (&[], &[]),
                }
                if unsent.is_empty() {
                    unsent = std::mem::take(&mut unsent_pack);
                }
                if unsent.is_empty() {
                    stdin = None;
                }
            }
            if let Some(end) = &mut stderr {
                match end.read(&mut buffer) {
                    Ok(0) => stderr = None,
                    Ok(read) => {
                        let free = STDERR_BYTES_MAX.saturating_sub(self.stderr.len());
                        self.stderr.extend_from_slice(&buffer[..read.min(free)]);
                    }
                    Err(error) if is_early(&error) => {}
                    Err(_) => stderr = None,
                }
            }
            match stdout.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    if let Some(compiled) = receiver.push(&buffer[..read])? {
                        return Ok(compiled);
                    }
                }
                Err(error) if is_early(&error) => {}
                Err(error) => return Err(pipe(error).into()),
            }
        }
        // What it wrote about its end is available once its output is closed, or never.
        while let Some(end) = &mut stderr {
            match end.read(&mut buffer) {
                Ok(read) if read > 0 && self.stderr.len() < STDERR_BYTES_MAX => {
                    self.stderr.extend_from_slice(&buffer[..read]);
                }
                _ => stderr = None,
            }
        }
        Err(ChildEnd::Silently)
    }

    /// Returns how the process ended, and what it wrote about that.
    fn end(mut self) -> (Option<ExitStatus>, String) {
        let until = Instant::now() + Duration::from_secs(1);
        // Its output is closed, so the process is about to end. If it does not, dropping this value
        // kills it.
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                other => break other.ok().flatten(),
            }
        };
        (status, String::from_utf8_lossy(&self.stderr).trim().to_owned())
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the address space that a pack takes besides what compiling takes: the pack, the index of
/// its keys, and new functions while they are collected and sent.
fn functions_memory(pack: Option<&[u8]>) -> u64 {
    pack.map_or(0, |pack| 3 * pack.len() as u64 + 4 * functions::NEW_BYTES_MAX as u64)
}

fn is_early(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Receives what a compiler process sends: a report, then code.
struct Receiver {
    limits: CompileLimits,
    head: Vec<u8>,
    body: Option<Body>,
    writer: Option<CodeWriter>,
}

struct Body {
    interface: Interface,
    /// Bytes of code that have not arrived.
    missing: u64,
    functions: Vec<u8>,
    functions_bytes: usize,
}

impl Receiver {
    fn new(limits: CompileLimits, writer: CodeWriter) -> Self {
        Receiver { limits, head: Vec::new(), body: None, writer: Some(writer) }
    }

    /// Returns `None` until everything has arrived.
    fn push(&mut self, bytes: &[u8]) -> Result<Option<Compiled>> {
        let foreign = |error: std::io::Error| {
            Error::failed(format!(
                "cannot read the answer of the compiler process: {error}; if the program was replaced, restart the \
                 host"
            ))
        };
        let mut code = Cow::Borrowed(bytes);
        if self.body.is_none() {
            self.head.extend_from_slice(bytes);
            let Some((report, length)) = report::parse(&self.head).map_err(foreign)? else { return Ok(None) };
            code = Cow::Owned(self.head.split_off(length));
            match report {
                Report::Rejected { message, detail } => {
                    return Err(self.rejected(&message).with_detail(detail));
                }
                Report::Compiled { interface, code_bytes, functions_bytes } => {
                    if code_bytes > self.limits.memory_bytes as u64 {
                        return Err(too_much_memory(self.limits));
                    }
                    if functions_bytes > CHANGE_BYTES_MAX {
                        return Err(foreign(std::io::Error::other("too many functions")));
                    }
                    let writer = self.writer.as_mut().expect("invariant: taken at the end");
                    writer.expect(code_bytes);
                    let (functions, functions_bytes) = (Vec::new(), functions_bytes as usize);
                    self.body = Some(Body { interface, missing: code_bytes, functions, functions_bytes });
                }
            }
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let split = code.len().min(usize::try_from(body.missing).unwrap_or(usize::MAX));
        let (code, functions) = code.split_at(split);
        body.missing -= split as u64;
        let writer = self.writer.as_mut().expect("invariant: taken at the end");
        writer.write(code).map_err(foreign)?;
        body.functions.extend_from_slice(functions);
        if body.functions.len() > body.functions_bytes {
            return Err(foreign(std::io::Error::other("more than announced")));
        }
        if body.missing > 0 || body.functions.len() < body.functions_bytes {
            return Ok(None);
        }
        let body = self.body.take().expect("invariant: it was there");
        let code = self.writer.take().expect("invariant: taken here only").finish();
        Ok(Some(Compiled { interface: body.interface, code, functions: body.functions }))
    }

    fn rejected(&self, message: &str) -> Error {
        if message.starts_with(child::NO_THREADS) {
            return Error::unavailable(format!("{message}; raise the limit of processes, or compile_mb"));
        }
        // An allocation failed as a system call, not in the allocator.
        match message.contains("Cannot allocate memory") || message.contains("os error 12") {
            true => too_much_memory(self.limits),
            false => Error::invalid(format!("not a component that this host can run: {message}")),
        }
    }
}

fn too_much_memory(limits: CompileLimits) -> Error {
    let mb = limits.memory_bytes >> 20;
    Error::invalid(format!(
        "compiling it takes more than {mb} MB of memory; raise compile_mb in its table under [plugins]"
    ))
}

fn out_of_wall_time(wall: Duration) -> Error {
    // The process had less than a tenth of a processor: the machine is at fault, and another
    // attempt may succeed.
    Error::unavailable(format!(
        "compiling it did not finish within {} s, because it got little processor time; the host tries again; if \
         this repeats, raise compile_s in its table under [plugins]",
        wall.as_secs()
    ))
}

/// Explains why a process ended without an answer.
fn explain(status: Option<ExitStatus>, stderr: &str, limits: CompileLimits) -> Error {
    let last = stderr.lines().last().unwrap_or("it printed nothing");
    let signal = status.and_then(|status| status.signal());
    let error = match signal.and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => Error::invalid(format!(
            "compiling it takes more than {} s of processor time; raise compile_s in its table under [plugins]",
            limits.cpu.as_secs()
        )),
        _ if stderr.contains("memory allocation of") => too_much_memory(limits),
        _ if stderr.contains("has overflowed its stack") => {
            Error::invalid("compiling it overflowed the compiler's stack: it is nested too deeply")
        }
        Some(signal @ (Signal::KILL | Signal::TERM | Signal::INT | Signal::HUP)) => {
            Error::unavailable(format!(
                "its compiler process was killed ({}), as the kernel does when memory runs out; give the host more \
                 memory, or lower compile_mb in its table under [plugins]",
                name(signal)
            ))
        }
        Some(signal) => Error::invalid(format!("the compiler crashed on it ({}): {last}", name(signal))),
        None if stderr.contains("panicked at") => {
            let message = stderr.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
            Error::invalid(format!("the compiler panicked on it: {}", message.unwrap_or(last)))
        }
        None => Error::failed(format!("the compiler process ended without an answer: {last}")),
    };
    error.with_detail(stderr)
}

/// Returns the name of a signal, such as `SIGKILL`.
fn name(signal: Signal) -> String {
    format!("{signal:?}").replace("Signal::", "SIG").replace('"', "")
}
