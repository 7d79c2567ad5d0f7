//! What the compiler process sends, and its limits: a length, a report in JSON, the native code,
//! then what has changed in the pack of functions.

use crate::plugin::component_info::Interface;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection};
use serde::{Deserialize, Serialize};
use std::io::{Error, Result, Write};

/// Maximum bytes of a report. `Interface::check` keeps the names of a component far below this.
pub const BYTES_MAX: usize = 4 << 20;

/// Bytes of a compiler's error that are kept.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Maximum bytes that the host reads into memory when it loads a compiled component: its types and
/// modules. CPython's component has 0.5 MB. In memory they take a multiple of this.
const METADATA_BYTES_MAX: u64 = 16 << 20;

/// The ELF section that contains the types and modules.
const METADATA: &str = ".wasmtime.info";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Report {
    Compiled {
        interface: Interface,
        code_bytes: u64,
        /// Bytes behind the code: which functions were used, and those that were compiled.
        #[serde(default, skip_serializing_if = "is_zero")]
        functions_bytes: u64,
    },
    /// The file is not a component, or not one that this host can run.
    Rejected { message: String, detail: String },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    pub fn rejected(message: String, detail: String) -> Self {
        Report::Rejected { message: cut(message), detail: cut(detail) }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}

pub fn write(out: &mut impl Write, report: &Report) -> Result<()> {
    let text = serde_json::to_vec(report)?;
    if text.len() > BYTES_MAX {
        return Err(Error::other("the report of a compiled component is too long"));
    }
    out.write_all(&(text.len() as u32).to_le_bytes())?;
    out.write_all(&text)
}

/// Parses the start of what `write` wrote: the report and its length in bytes. Returns `None`
/// until the report has arrived completely.
pub fn parse(bytes: &[u8]) -> Result<Option<(Report, usize)>> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > BYTES_MAX {
        return Err(Error::other(format!("a report of {length} bytes")));
    }
    let Some(text) = rest.get(..length) else { return Ok(None) };
    let report: Report = serde_json::from_slice(text)?;
    if let Report::Compiled { interface, .. } = &report {
        interface.check().map_err(Error::other)?;
    }
    Ok(Some((report, 4 + length)))
}

/// Checks that the host can load this code within its limits. The error says why not.
pub fn check_code(code: &[u8]) -> std::result::Result<(), String> {
    let file = ElfFile64::<Endianness>::parse(code).map_err(|error| format!("not native code: {error}"))?;
    let bytes = file.section_by_name(METADATA).map_or(0, |section| section.size());
    if bytes > METADATA_BYTES_MAX {
        let (have, max) = (bytes >> 20, METADATA_BYTES_MAX >> 20);
        return Err(format!(
            "it has too many types, functions and modules: {have} MB of them, but at most {max} MB are loaded"
        ));
    }
    Ok(())
}
