//! The machine that the benchmark runs on: what it is, and whether it is idle enough.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use xtask::command::{output, step};
use xtask::error::{Attempt, Result};
use xtask::layout::Layout;

/// An idle machine is below this; a higher load affects the results.
const BUSY_PERCENT_MAX: f64 = 10.0;

/// Returns the processor, the kernel and all relevant versions as a Markdown list. `requirements`
/// is the file that pins the peer's packages.
pub fn describe(layout: &Layout, hostler: &Path, requirements: &str, busy_percent: f64) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let requirements = layout.root.join(requirements);
    let requirements =
        fs::read_to_string(&requirements).attempting(|| format!("read {}", requirements.display()))?;
    let pins = requirements.lines().filter(|line| line.contains("==")).map(|line| line.replace("==", " "));
    Ok(format!(
        "- Machine: {cores} cores, {}, Linux {}, {busy_percent:.0} % busy before the run\n- {}, {}\n- {}, {}\n- wrk {}\n",
        model.map_or("unknown processor", |(_, model)| model.trim()),
        kernel.trim(),
        version(hostler),
        version(Path::new("rustc")),
        version(Path::new("python3")),
        pins.collect::<Vec<_>>().join(", "),
        wrk_version(),
    ))
}

/// Identifies a build of a program by its version and the beginning of its digest.
pub fn build(program: &Path) -> Result<String> {
    let text = output(Command::new("sha256sum").arg(program), "sha256sum is in Debian's package coreutils")?;
    // sha256sum prints a backslash before the digest if the file name has special characters.
    let digest: String = text.trim_start_matches('\\').chars().take(12).collect();
    Ok(format!("{}, sha256 {digest}…", version(program)))
}

/// Prints a warning if other processes use the machine.
pub fn warn_if_busy(busy_percent: f64) {
    if busy_percent > BUSY_PERCENT_MAX {
        step(&format!(
            "warning: the machine is {busy_percent:.0} % busy with other work: results will be unreliable"
        ));
    }
}

/// Returns how much of all cores other processes use, in percent. Measures for one second; must be
/// called before any server is started.
pub fn busy_percent() -> Result<f64> {
    let before = cpu_times()?;
    sleep(Duration::from_secs(1));
    let after = cpu_times()?;
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    Ok(100.0 * busy as f64 / all.max(1) as f64)
}

/// Returns the ticks since boot, summed over all cores: busy ones, and all.
fn cpu_times() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").attempting(|| "read /proc/stat".to_owned())?;
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; user and nice include the later fields.
    let ticks: Vec<u64> = words.take(8).map(|word| word.parse().unwrap_or(0)).collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

fn version(program: &Path) -> String {
    let text = output(Command::new(program).arg("--version"), "");
    text.map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

/// Returns the version of wrk. `wrk -v` exits with status 1, and its version line continues with a
/// copyright.
fn wrk_version() -> String {
    let text = Command::new("wrk").arg("-v").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split_whitespace().nth(1).unwrap_or("unknown").to_owned()
}
