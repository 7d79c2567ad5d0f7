//! The command line.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::{Args, Parser, Subcommand};
use hostler::allocator::Allocator;
use hostler::cli::Picture;
use hostler::cli::jobs::JobsCommand;
use hostler::cli::key::KeyCommand;
use hostler::cli::project;
use hostler::config::ListenAddress;
use hostler::error::Error;
use hostler::output::{self, Form};
use hostler::plugin::compiler::{self, child::CompileTask};
use hostler::{app, cli, drill, shutdown};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// A native inference host: ONNX models and WebAssembly plugins, swapped live.
#[derive(Parser)]
#[command(version, after_help = "Docs: README.md. Log level: HOSTLER_LOG=debug (the syntax of RUST_LOG).")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serve a manifest, and reload it when its files change.
    Serve(Serve),
    /// Check a manifest (loads everything, serves nothing) or a plugin; exit code 0 if it is valid.
    Check(Check),
    /// Show what a manifest would change in a running host.
    Diff(Diff),
    /// List, show, end and delete the jobs of a running host.
    Jobs {
        #[command(subcommand)]
        command: JobsCommand,
    },
    /// Make API keys.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Run one request through a manifest's model, without a server.
    Predict(Predict),
    /// Test a copy of a manifest under load with reloads, faults and overload; prints a table, exit
    /// code 0 if all exercises passed.
    Drill(Drill),
    /// Compile one plugin from standard input, under limits. The host runs this for each plugin
    /// that it compiles.
    #[command(name = compiler::COMMAND, hide = true)]
    CompilePlugin(CompilePlugin),
    /// Create a project for a plugin: rust, python, js, ts, go or c; transformer, model, executor
    /// or streaming-model.
    New {
        language: String,
        role: String,
        /// Created if it does not exist; the project is named after it.
        folder: Option<PathBuf>,
        /// Write into a folder that is not empty, and overwrite files with the same names.
        #[arg(long)]
        force: bool,
    },
    /// Build the plugin of a project, with the steps of its plugin.toml.
    Build {
        /// The folder of the project.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Make a component of a core module, which is what the tools of C, Zig and Go build.
    Component {
        module: PathBuf,
        /// The world of the contract that the plugin implements, such as transformer-plugin.
        #[arg(long)]
        world: String,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Serve a project; build and reload it whenever a file is saved.
    Dev(DevArguments),
    /// Run a file of cases against the real components of a manifest, without a server.
    Test(TestArguments),
    /// Measure what one call of a plugin costs, and compare it with another build; exit code 1 if
    /// it is slower.
    Bench(BenchArguments),
    /// Look for the tools of a language, and print what brings a missing one.
    Doctor {
        /// All languages if none is given.
        language: Option<String>,
    },
    /// Write the SDK of a language into a folder.
    Sdk {
        language: String,
        /// Created if it does not exist.
        #[arg(default_value = "sdk")]
        folder: PathBuf,
        /// Overwrite files that have other content.
        #[arg(long)]
        force: bool,
    },
    /// Write the plugin contract (WIT) into a folder.
    Wit {
        /// Created if it does not exist.
        #[arg(default_value = "wit")]
        folder: PathBuf,
        /// Overwrite files that have other content.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
struct Serve {
    /// The manifest to serve; its paths are relative to its folder.
    #[arg(default_value = "hostler.toml")]
    manifest: PathBuf,
    /// Public listener, instead of the manifest's: an address or a name, and a port; port 0 selects
    /// a free one.
    #[arg(long, value_name = "ADDR")]
    http: Option<ListenAddress>,
    /// gRPC listener, instead of the manifest's; without either, gRPC is off.
    #[arg(long, value_name = "ADDR")]
    grpc: Option<ListenAddress>,
    /// Admin listener, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    admin: Option<ListenAddress>,
    /// If the files are invalid at start, serve the copy of the last good ones.
    #[arg(long, value_name = "WHAT", value_parser = ["last-good"])]
    fallback: Option<String>,
    /// Where the last good copy is kept.
    #[arg(long, value_name = "DIR", requires = "fallback")]
    state_dir: Option<PathBuf>,
    /// Accept connections only when everything is loaded. Otherwise health checks are answered at
    /// once, and everything else with 503 until then.
    #[arg(long)]
    bind_when_ready: bool,
}

#[derive(Args)]
struct DevArguments {
    /// The folder of the project.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The manifest to serve, relative to the project.
    #[arg(long, default_value = "hostler.toml", value_name = "FILE")]
    manifest: PathBuf,
    /// Public listener, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    http: Option<ListenAddress>,
    /// gRPC listener, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    grpc: Option<ListenAddress>,
    /// Admin listener, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    admin: Option<ListenAddress>,
}

#[derive(Args)]
struct TestArguments {
    /// The cases: a JSON file.
    #[arg(default_value = "cases.json")]
    cases: PathBuf,
    /// The manifest with the models.
    #[arg(long, default_value = "hostler.toml", value_name = "FILE")]
    manifest: PathBuf,
    /// Numbers may differ by this much.
    #[arg(long, default_value = "0", value_name = "N", value_parser = tolerance)]
    tolerance: f64,
    /// Write the answers into the file as the expected ones.
    #[arg(long)]
    update: bool,
    /// Run only cases whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

#[derive(Args)]
struct BenchArguments {
    /// The request, as for POST /predict.
    #[arg(default_value = "request.json")]
    request: PathBuf,
    /// The manifest with the model.
    #[arg(long, default_value = "hostler.toml", value_name = "FILE")]
    manifest: PathBuf,
    /// The plugin to measure, if the manifest has several.
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Another build of the plugin, to compare with.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value = "2", value_name = "N", value_parser = positive)]
    seconds: f64,
}

#[derive(Args)]
struct Check {
    /// A manifest, or a plugin (.wasm).
    #[arg(default_value = "hostler.toml")]
    file: PathBuf,
    /// Print the route of requests for this model, such as `echo` or `echo:v1`.
    #[arg(long, value_name = "MODEL")]
    resolve: Option<String>,
    /// Print what the holder of the key or token in this file may do.
    #[arg(long, value_name = "FILE")]
    as_key_file: Option<PathBuf>,
    /// Print the graphs of pipelines as Mermaid or Graphviz source.
    #[arg(long, value_name = "FORMAT", value_parser = ["mermaid", "dot"])]
    graph: Option<String>,
    /// Read the manifest and its files only: compile no plugin, load no model, run no checks.
    #[arg(long)]
    quick: bool,
}

#[derive(Args)]
struct CompilePlugin {
    #[arg(long)]
    bytes: usize,
    #[arg(long)]
    pack_bytes: Option<usize>,
    #[arg(long)]
    concurrent: bool,
    #[arg(long)]
    memory_reservation: u64,
    #[arg(long)]
    threads: usize,
    #[arg(long)]
    cpu_s: u64,
    #[arg(long)]
    memory_bytes: u64,
    #[arg(long)]
    parent: u32,
}

#[derive(Args)]
struct Diff {
    /// The manifest to compare.
    #[arg(default_value = "hostler.toml")]
    manifest: PathBuf,
    /// Admin address of the running host, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    admin: Option<ListenAddress>,
    /// Use TLS and trust these authorities (PEM), instead of the manifest's certificate.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with the API key or token to send.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Args)]
struct Predict {
    /// The request, as for POST /predict; `-` reads standard input.
    #[arg(required_unless_present = "body", conflicts_with = "body")]
    request: Option<PathBuf>,
    /// A body, as for POST /predict/{model}, such as an image; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// What the body is, such as image/jpeg. Without it, the ending of the file's name decides.
    #[arg(long, value_name = "TYPE", requires = "body")]
    content_type: Option<String>,
    /// The model of the body, as NAME or NAME:VERSION, if the manifest has several.
    #[arg(long, value_name = "NAME", requires = "body")]
    model: Option<String>,
    /// Run the request N times, and print how long the calls take.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// The manifest with the model.
    #[arg(long, default_value = "hostler.toml", value_name = "FILE")]
    manifest: PathBuf,
    /// Print for each step of a pipeline its inputs, outputs and duration, and why it was skipped.
    #[arg(long)]
    steps: bool,
}

#[derive(Args)]
struct Drill {
    /// The manifest to copy; its files are read, never written.
    #[arg(default_value = "hostler.toml")]
    manifest: PathBuf,
    /// The duration of each exercise, in seconds.
    #[arg(long, default_value = "10", value_name = "N", value_parser = positive)]
    seconds: f64,
    /// Connections that send requests continuously.
    #[arg(long, default_value = "20", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// The maximum number of swaps per second.
    #[arg(long, default_value = "2", value_name = "N", value_parser = positive)]
    swaps_per_second: f64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Run only this exercise; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = drill::EXERCISES)]
    only: Vec<String>,
}

/// Parses a number within limits that suit both a duration in seconds and a rate.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.01..=100_000.0).contains(number));
    number.ok_or_else(|| "it must be a number from 0.01 to 100000".to_owned())
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=f64::MAX).contains(number));
    number.ok_or_else(|| "it must be a number that is not negative".to_owned())
}

fn main() -> ExitCode {
    // ONNX Runtime's official builds send usage data to their maker unless this is set before they
    // are loaded. SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let command = Command::parse();
    match &command.action {
        // It reports everything in its answer, and its limits allow no threads that write a log.
        Action::CompilePlugin(_) => {}
        Action::Serve(_) | Action::Dev(_) | Action::Drill(_) => init_log(),
        _ => {
            shutdown::end_as_first_process();
            init_log();
        }
    }
    let outcome = match command.action {
        Action::CompilePlugin(request) => {
            let CompilePlugin {
                bytes,
                pack_bytes,
                concurrent,
                memory_reservation,
                threads,
                cpu_s,
                memory_bytes,
                parent,
            } = request;
            return compiler::child::run(&CompileTask {
                bytes,
                pack_bytes,
                concurrent,
                memory_reservation,
                threads,
                cpu_s,
                memory_bytes,
                parent,
            });
        }
        Action::Serve(serve) => serve.run(),
        Action::New { language, role, folder, force } => {
            project::new(&language, &role, folder.as_deref(), force)
        }
        Action::Build { folder } => project::build(&folder),
        Action::Component { module, world, out } => project::component(&module, &world, &out),
        Action::Dev(dev) => dev.run(),
        Action::Test(TestArguments { cases, manifest, tolerance, update, only }) => {
            project::test(&project::Test { cases, manifest, tolerance, update, only })
        }
        Action::Bench(BenchArguments { request, manifest, plugin, against, seconds }) => {
            let time = Duration::from_secs_f64(seconds);
            project::bench(&project::Bench { request, manifest, plugin, against, time })
        }
        Action::Doctor { language } => project::doctor(language.as_deref()),
        Action::Sdk { language, folder, force } => project::write_sdk(&language, &folder, force),
        Action::Check(Check { file, resolve, as_key_file, graph, quick }) => {
            let picture = graph.map(|format| if format == "dot" { Picture::Dot } else { Picture::Mermaid });
            cli::check(&file, resolve.as_deref(), as_key_file.as_deref(), picture, quick)
        }
        Action::Diff(Diff { manifest, admin, ca, key_file }) => {
            cli::diff(&manifest, admin, ca.as_deref(), key_file.as_deref())
        }
        Action::Key { command } => cli::key::run(&command),
        Action::Jobs { command } => cli::jobs::run(command),
        Action::Predict(predict) => predict.run(),
        Action::Drill(Drill { manifest, seconds, connections, swaps_per_second, json, only }) => {
            drill::run(&drill::Options {
                manifest,
                time: Duration::from_secs_f64(seconds),
                connections: connections as usize,
                swaps_per_second,
                json,
                only,
            })
        }
        Action::Wit { folder, force } => project::write_contract(&folder, force),
    };
    // ONNX Runtime frees its globals when the process exits, so all sessions must be freed before.
    hostler::executor::unload::finish(Duration::from_secs(10));
    match (outcome, output::print_error()) {
        (Ok(true), None) => ExitCode::SUCCESS,
        (Ok(false), None) => ExitCode::FAILURE,
        (Ok(_), Some(error)) => {
            output::report(format_args!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        (Err(error), _) => {
            report_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Reports why the command ends.
fn report_error(error: &Error) {
    match error.is_laid_out() {
        true => output::report_lines(error.message()),
        false => output::report(error.message().trim_end()),
    }
}

impl Serve {
    /// Serves until the process ends, by a signal or because it cannot start.
    fn run(self) -> ! {
        let Serve { manifest, http, grpc, admin, fallback, state_dir, bind_when_ready } = self;
        let fallback = fallback.is_some();
        let options = app::Options { manifest, http, grpc, admin, fallback, state_dir, bind_when_ready };
        let Err(error) = app::serve(options);
        report_error(&error);
        // Why the host cannot start is its only output, so even a slow reader gets all of it.
        output::flush(output::REPORT_TIMEOUT);
        shutdown::exit(1)
    }
}

impl Predict {
    fn run(self) -> hostler::error::Result<bool> {
        let Predict { request, body, content_type, model, repeat, manifest, steps } = self;
        let request = match (body, request) {
            (Some(file), _) => cli::PredictRequest::Body { file, content_type, model },
            (None, request) => cli::PredictRequest::File(request.expect("invariant: clap requires it")),
        };
        cli::predict(&cli::Predict { manifest, request, shows_steps: steps, calls: repeat })
    }
}

impl DevArguments {
    /// Serves until the process ends, by a signal or because it cannot start.
    fn run(self) -> ! {
        let DevArguments { folder, manifest, http, grpc, admin } = self;
        let manifest = folder.join(manifest);
        let serve = app::Options {
            manifest,
            http,
            grpc,
            admin,
            fallback: false,
            state_dir: None,
            bind_when_ready: false,
        };
        let Err(error) = project::dev(project::Dev { folder, serve });
        report_error(&error);
        output::flush(output::REPORT_TIMEOUT);
        shutdown::exit(1)
    }
}

/// Initializes the log, on stderr. Stdout is for answers and the access log.
fn init_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("HOSTLER_LOG").unwrap_or_else(|_| EnvFilter::new("info,ort=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let is_json = std::env::var_os("HOSTLER_LOG_FORMAT").is_some_and(|format| format == "json");
    let is_colored = std::io::IsTerminal::is_terminal(&std::io::stderr());
    match (is_json, is_colored) {
        (true, _) => builder.with_writer(|| Log(Form::Json)).json().init(),
        (false, true) => builder.with_writer(|| Log(Form::ColoredLine)).with_ansi(true).init(),
        (false, false) => builder.with_writer(|| Log(Form::Line)).with_ansi(false).init(),
    }
}

/// Writes each event of the log with one call.
struct Log(Form);

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        output::log().write(line, self.0);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
