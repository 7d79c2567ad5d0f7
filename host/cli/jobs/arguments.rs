//! The arguments of `hostler jobs`.

use super::times;
use crate::config::ListenAddress;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first.
    List(List),
    /// Show a job with its attempts, and its result or error.
    Show(Show),
    /// End jobs that have not ended.
    Cancel(Change),
    /// Submit the inputs of jobs again that have ended without a result.
    Retry(Change),
    /// Delete jobs that have ended.
    Purge(Purge),
    /// Write jobs with their attempts, errors and results, one JSON object on each line.
    Export(Export),
    /// Set the files of a damaged store aside, and begin with an empty one.
    Reset(Reset),
}

// Where the public listener is. This is no documentation, which would become that of commands.
#[derive(Args)]
pub struct PublicHost {
    /// Public address of the running host, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<ListenAddress>,
    /// The manifest with the addresses of the host; by default hostler.toml, if it exists.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Use TLS and trust these authorities (PEM), instead of the manifest's certificate.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with the API key or token to send.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

// Where the admin listener is.
#[derive(Args)]
pub struct AdminHost {
    /// Admin address of the running host, instead of the manifest's.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<ListenAddress>,
    /// The manifest with the addresses of the host; by default hostler.toml, if it exists.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Use TLS and trust these authorities (PEM), instead of the manifest's certificate.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with the API key or token to send.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

// Which jobs are meant.
#[derive(Args)]
pub struct Which {
    /// Only jobs in these states, separated by commas.
    #[arg(long, value_name = "STATES")]
    pub state: Option<String>,
    /// Only jobs of this model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Only jobs of this version of the model.
    #[arg(long, value_name = "VERSION", requires = "model")]
    pub version: Option<String>,
    /// Only jobs that were created at this time or later, such as 2026-11-30T16:25:42Z or
    /// 2026-11-30.
    #[arg(long, value_name = "TIME")]
    pub created_after: Option<String>,
    /// Only jobs that were created before this time.
    #[arg(long, value_name = "TIME")]
    pub created_before: Option<String>,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub which: Which,
    /// The most jobs to list.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// List all jobs.
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Print one JSON object for each job instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub host: PublicHost,
}

#[derive(Args)]
pub struct Show {
    /// The id of the job.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// Wait until the job has ended, for at most this time; exit code 1 if it has not.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    pub wait: Option<u64>,
    /// Print the JSON of the host.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub host: PublicHost,
}

#[derive(Args)]
pub struct Change {
    /// The ids of the jobs.
    #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub host: PublicHost,
}

#[derive(Args)]
pub struct Purge {
    #[command(flatten)]
    pub which: Which,
    /// Only jobs that ended longer ago than this, such as 90s, 30m, 12h, 7d or 2w.
    #[arg(long, value_name = "TIME", value_parser = times::parse)]
    pub older_than: Option<Duration>,
    /// Delete every job that has ended.
    #[arg(long, conflicts_with_all = ["state", "model", "version", "created_after", "created_before", "older_than"])]
    pub all: bool,
    /// Count the jobs, and delete none.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub host: AdminHost,
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    pub which: Which,
    /// The file to write instead of stdout. It is new, and exists only once it is complete.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long, requires = "output")]
    pub force: bool,
    #[command(flatten)]
    pub host: PublicHost,
}

#[derive(Args)]
pub struct Reset {
    /// Do it. Without this, the command says what it would do.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub host: AdminHost,
}
