//! The machine under the measurement: what it is, and whether it is quiet enough to be measured on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use xtask::command::{output, step};
use xtask::error::{Attempt, Result};
use xtask::layout::Layout;

/// An idle machine shows less; more than this is seen in the results.
const BUSY_PERCENT_MAX: f64 = 10.0;

/// Processor, kernel and all versions that matter, as a Markdown list. `requirements` has those of the peer's packages.
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

/// Which build a program is: its version, and the begin of its digest.
pub fn build(program: &Path) -> Result<String> {
    let text = output(Command::new("sha256sum").arg(program), "sha256sum is in Debian's package coreutils")?;
    // A name with odd characters has a backslash before the digest.
    let digest: String = text.trim_start_matches('\\').chars().take(12).collect();
    Ok(format!("{}, sha256 {digest}…", version(program)))
}

/// Says so if others use the machine.
pub fn warn_if_busy(busy_percent: f64) {
    if busy_percent > BUSY_PERCENT_MAX {
        step(&format!(
            "warning: the machine is {busy_percent:.0} % busy with other work: expect poor numbers"
        ));
    }
}

/// How much of all cores others use: looked at for one second, before anything is started.
pub fn busy_percent() -> Result<f64> {
    let before = cpu_times()?;
    sleep(Duration::from_secs(1));
    let after = cpu_times()?;
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    Ok(100.0 * busy as f64 / all.max(1) as f64)
}

/// Ticks since boot of all cores together: busy ones, and all.
fn cpu_times() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").attempting(|| "read /proc/stat".to_owned())?;
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; what follows is contained in user and nice.
    let ticks: Vec<u64> = words.take(8).map(|word| word.parse().unwrap_or(0)).collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

fn version(program: &Path) -> String {
    let text = output(Command::new(program).arg("--version"), "");
    text.map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

/// `wrk -v` ends with status 1, and its version line runs on into a copyright.
fn wrk_version() -> String {
    let text = Command::new("wrk").arg("-v").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split_whitespace().nth(1).unwrap_or("unknown").to_owned()
}
