//! The compiler process: reads one component from its standard input, writes a report and the
//! native code to its standard output, and ends.
//!
//! A component of a few hundred bytes can make the compiler use any amount of time or memory, and
//! Cranelift can be neither stopped nor bounded from within. It therefore runs here, under limits
//! that the kernel enforces. The parent (`super`) explains to the host's users why this process
//! ended.

use super::functions::FunctionStore;
use super::report::{self, Report};
use crate::plugin::component_info::Interface;
use crate::plugin::wasmtime_config::code_settings;
use rustix::process::{Resource, Rlimit};
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use wasmtime::component::Component;

/// What the parent asks for, as arguments of the hidden command.
#[derive(Clone, Copy, Debug)]
pub struct CompileTask {
    /// Length of the component.
    pub bytes: usize,
    /// Length of the pack of functions that follows; `None` to compile without one.
    pub pack_bytes: Option<usize>,
    /// Whether to compile for the engine of streaming models.
    pub concurrent: bool,
    /// Address space of each linear memory, which decides whether the code checks bounds.
    pub memory_reservation: u64,
    pub threads: usize,
    pub cpu_s: u64,
    /// Address space of the process.
    pub memory_bytes: u64,
    pub parent: u32,
}

/// A lower priority than threads that load models have, and a much lower one than threads that
/// serve.
const NICE: i32 = 10;

/// Start of the message when threads cannot be started.
pub(super) const NO_THREADS: &str = "cannot start compile threads";

/// Standard input, output and error, and some for libraries.
const FILES_MAX: u64 = 32;

/// Compiles one component. The exit code is for the parent; a message on standard error is for its
/// log.
pub fn run(task: &CompileTask) -> ExitCode {
    let outcome = restrict(task).and_then(|()| {
        let mut wasm = vec![0; task.bytes];
        std::io::stdin().lock().read_exact(&mut wasm)?;
        let mut pack = vec![0; task.pack_bytes.unwrap_or_default()];
        std::io::stdin().lock().read_exact(&mut pack)?;
        let functions = task.pack_bytes.map(|_| Arc::new(FunctionStore::new(pack)));
        let (mut report, code) = compile(task, &wasm, functions.as_ref());
        let change = functions.map(|functions| functions.change()).unwrap_or_default();
        if let Report::Compiled { functions_bytes, .. } = &mut report {
            *functions_bytes = change.len() as u64;
        }
        let mut out = std::io::stdout().lock();
        report::write(&mut out, &report)?;
        out.write_all(&code)?;
        if matches!(report, Report::Compiled { .. }) {
            out.write_all(&change)?;
        }
        out.flush()
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // This fails only if the parent, which reads it, has ended.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives up everything that compiling does not need.
fn restrict(task: &CompileTask) -> std::io::Result<()> {
    use rustix::process::{Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before that call.
    if getppid().is_none_or(|parent| parent.as_raw_pid() as u32 != task.parent) {
        return Err(std::io::Error::other("the host that started this compiler has ended"));
    }
    close_inherited();
    std::env::set_current_dir("/")?;
    crate::config::lower_priority(NICE);
    // When memory runs out, the kernel kills this process and not the host. Without /proc the
    // kernel chooses.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limits = [
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
        (Resource::Nofile, FILES_MAX, FILES_MAX),
        // The soft limit ends the process with SIGXCPU, which tells the parent what happened.
        (Resource::Cpu, task.cpu_s, task.cpu_s.saturating_add(5)),
        (Resource::As, task.memory_bytes, task.memory_bytes),
    ];
    for (resource, current, maximum) in limits {
        // A limit that was set for the host itself cannot be raised.
        let given = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let (current, maximum) = (Some(current.min(given)), Some(maximum.min(given)));
        setrlimit(resource, Rlimit { current, maximum })?;
    }
    Ok(())
}

/// Closes inherited files. The host opens none that a child inherits, but libraries in its process
/// may.
fn close_inherited() {
    // SAFETY: nothing in this process has opened a file yet. Kernels before 5.9 return an error.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

fn compile(task: &CompileTask, wasm: &[u8], functions: Option<&Arc<FunctionStore>>) -> (Report, Vec<u8>) {
    let compiled = rayon::ThreadPoolBuilder::new()
        .num_threads(task.threads)
        .build()
        .map_err(|error| wasmtime::Error::msg(format!("{NO_THREADS}: {error}")))
        .and_then(|threads| {
            // The engine has no pool of instances: the address space is for the compiler.
            let mut settings = code_settings(task.concurrent, task.memory_reservation);
            if let Some(functions) = functions {
                settings.enable_incremental_compilation(Arc::clone(functions) as _)?;
            }
            let engine = wasmtime::Engine::new(&settings)?;
            let component = threads.install(|| Component::from_binary(&engine, wasm))?;
            let interface = Interface::of(&engine, &component);
            Ok((interface, component.serialize()?))
        });
    match compiled {
        Ok((interface, code)) => match interface.check().and_then(|()| report::check_code(&code)) {
            Ok(()) => {
                (Report::Compiled { interface, code_bytes: code.len() as u64, functions_bytes: 0 }, code)
            }
            Err(message) => (Report::rejected(message, String::new()), Vec::new()),
        },
        Err(error) => (Report::rejected(error.root_cause().to_string(), format!("{error:?}")), Vec::new()),
    }
}
