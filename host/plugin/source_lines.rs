//! Where a guest is in the source of its author, from the line tables of a component with debug
//! information.
//!
//! Only the line tables are read. Their forms are flat, so that no input of an author can exhaust
//! the stack of the host, and the limits below bound time and memory. Functions that the compiler
//! has inlined are not told apart: a line is where the innermost of them is.

use gimli::{AttributeValue, DebugLine, DebugLineOffset, EndianSlice, LineProgramHeader, LittleEndian};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;
use wasmparser::{Parser, Payload};

/// The most bytes of line tables that are kept of one component. One with more has no lines.
const BYTES_MAX: usize = 4 << 20;

/// The largest head of a line table that is read. It names the files of one unit.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The most rows that are kept of one module.
const ROWS_MAX: usize = 300_000;

/// The most files that are named in one module.
const FILES_MAX: usize = 1024;

/// The most core modules with lines. Components of one program have one.
const MODULES_MAX: usize = 4;

/// The most characters of a path that are shown.
const PATH_MAX: usize = 200;

/// Longer names of files and folders are not read.
const NAME_BYTES_MAX: usize = 1024;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// The line tables of the core modules of a component.
#[derive(Default)]
pub(super) struct SourceLines(Vec<ModuleLines>);

impl SourceLines {
    /// Copies the line tables of a component. They are read when a place is looked up.
    pub fn of(wasm: &[u8]) -> Self {
        let (mut modules, mut bytes) = (Vec::new(), 0);
        // The modules that are not at their end yet, the innermost last.
        let mut open = Vec::new();
        for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                    open.push(ModuleLines::default());
                }
                Payload::End(_) => {
                    let module = open.pop().filter(|_| modules.len() < MODULES_MAX);
                    modules.extend(module.filter(ModuleLines::is_whole));
                }
                Payload::CodeSectionStart { range, .. } => {
                    if let Some(module) = open.last_mut() {
                        module.code = range;
                    }
                }
                Payload::CustomSection(section) => {
                    let Some(module) = open.last_mut() else { continue };
                    let copy = match section.name() {
                        ".debug_line" => &mut module.lines,
                        ".debug_line_str" => &mut module.strings,
                        _ => continue,
                    };
                    bytes += section.data().len();
                    if bytes > BYTES_MAX {
                        return SourceLines::default();
                    }
                    *copy = section.data().to_vec();
                }
                _ => {}
            }
        }
        SourceLines(modules)
    }

    /// Returns `file:line` of the instruction at an offset in the component; `near file:line` if
    /// the instruction itself is of a library.
    pub fn at(&self, offset: usize) -> Option<String> {
        let module = self.0.iter().find(|module| module.code.contains(&offset))?;
        let address = u32::try_from(offset - module.code.start).ok()?;
        module.table().at(address)
    }
}

/// The line table of a core module, as it is in the component.
#[derive(Default)]
struct ModuleLines {
    /// Where its code is in the component. Addresses begin there.
    code: Range<usize>,
    lines: Vec<u8>,
    strings: Vec<u8>,
    table: OnceLock<Table>,
}

impl ModuleLines {
    fn is_whole(&self) -> bool {
        !self.lines.is_empty() && !self.code.is_empty()
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(|| Table::of(&self.lines, &self.strings, self.code.len()))
    }
}

/// The rows of a line table, by address.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    files: Vec<String>,
}

/// The code from an address up to the next row.
#[derive(Clone, Copy)]
struct Row {
    address: u32,
    line: u32,
    /// The index of the file; `None` after the end of a function.
    file: Option<u32>,
}

impl Table {
    fn of(lines: &[u8], strings: &[u8], code_bytes: usize) -> Self {
        let mut table = Table::default();
        let mut from = 0;
        while let Some(unit) = Unit::at(lines, from) {
            if unit.head_bytes <= HEAD_BYTES_MAX {
                table.read(lines, from, strings, code_bytes);
            }
            if table.rows.len() >= ROWS_MAX {
                break;
            }
            from = unit.end;
        }
        // A function begins where the one before it ends.
        table.rows.sort_by_key(|row| (row.address, row.file.is_some()));
        table
    }

    /// Adds the rows of the unit at an offset, up to the first that cannot be read.
    fn read(&mut self, lines: &[u8], from: usize, strings: &[u8], code_bytes: usize) -> Option<()> {
        let section = DebugLine::new(lines, LittleEndian);
        let mut rows = section.program(DebugLineOffset(from), 4, None, None).ok()?.rows();
        let mut files: HashMap<u64, Option<u32>> = HashMap::new();
        let mut function: Vec<Row> = Vec::new();
        while let Ok(Some((header, row))) = rows.next_row() {
            if self.rows.len() + function.len() >= ROWS_MAX {
                return None;
            }
            let address = u32::try_from(row.address()).unwrap_or(u32::MAX);
            let file = match row.end_sequence() {
                true => None,
                false => *files.entry(row.file_index()).or_insert_with(|| {
                    let index =
                        u32::try_from(self.files.len()).ok().filter(|_| self.files.len() < FILES_MAX)?;
                    self.files.push(path(header, row.file_index(), strings)?);
                    Some(index)
                }),
            };
            let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            function.push(Row { address, line, file });
            if row.end_sequence() {
                // The linker leaves functions that it has removed at 0, or behind the code.
                let is_live = function[0].address > 0 && (address as usize) <= code_bytes;
                self.rows.extend(function.drain(..).filter(|_| is_live));
            }
        }
        Some(())
    }

    fn at(&self, address: u32) -> Option<String> {
        let after = self.rows.partition_point(|row| row.address <= address);
        let at = after.checked_sub(1)?;
        let row = &self.rows[at];
        let file = self.file(row)?;
        if self.is_authors(row) {
            return Some(format!("{file}:{}", row.line));
        }
        // A library, which the compiler may have put into a function of the author.
        let is_function = |row: &&Row| row.file.is_some();
        let before = self.rows[..at].iter().rev().take_while(is_function);
        let behind = self.rows[after..].iter().take_while(is_function);
        match before.chain(behind).find(|row| self.is_authors(row)) {
            Some(near) => Some(format!("near {}:{}", self.file(near)?, near.line)),
            None if row.line == 0 => Some(file.to_owned()),
            None => Some(format!("{file}:{}", row.line)),
        }
    }

    fn file(&self, row: &Row) -> Option<&str> {
        self.files.get(usize::try_from(row.file?).ok()?).map(String::as_str)
    }

    /// Whether a row is code of the project: compilers name its files from its folder, and those of
    /// libraries from the root. Line 0 is code without a line.
    fn is_authors(&self, row: &Row) -> bool {
        row.line > 0 && self.file(row).is_some_and(|file| !file.starts_with(['/', '…']))
    }
}

/// How large the unit at an offset of a line table is, and its head.
struct Unit {
    end: usize,
    head_bytes: usize,
}

impl Unit {
    /// Returns the unit at an offset; `None` if there is none in the 32-bit form.
    fn at(lines: &[u8], from: usize) -> Option<Self> {
        let number = |at: usize| {
            let bytes = lines.get(at..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        let end = (from + 4).checked_add(number(from)?).filter(|end| *end <= lines.len())?;
        let version = u16::from_le_bytes(*lines.get(from + 4..)?.first_chunk::<2>()?);
        // Version 5 has two bytes more before the length of the head.
        let head_bytes = number(if version >= 5 { from + 8 } else { from + 6 })?;
        Some(Unit { end, head_bytes })
    }
}

/// Returns the path of a file, from the folder in which the author has compiled it.
fn path(header: &LineProgramHeader<Bytes<'_>>, index: u64, strings: &[u8]) -> Option<String> {
    let text = |value: AttributeValue<Bytes<'_>>| {
        let bytes = match &value {
            AttributeValue::String(text) => text.slice(),
            AttributeValue::DebugLineStrRef(offset) => {
                let rest = strings.get(offset.0..)?;
                let rest = &rest[..rest.len().min(NAME_BYTES_MAX + 1)];
                rest.split(|byte| *byte == 0).next()?
            }
            _ => return None,
        };
        (bytes.len() <= NAME_BYTES_MAX).then(|| String::from_utf8_lossy(bytes).into_owned())
    };
    let file = header.file(index)?;
    let name = text(file.path_name())?;
    // Folder 0 is the one of the compilation itself.
    let folder = file.directory(header).filter(|_| file.directory_index() > 0).and_then(text);
    let path = match folder {
        Some(folder) if !name.starts_with('/') => format!("{folder}/{name}"),
        _ => name,
    };
    let shown: Vec<char> = path.chars().map(|one| if one.is_control() { '?' } else { one }).collect();
    // The end of a long path says more than its beginning.
    Some(match shown.len().checked_sub(PATH_MAX) {
        Some(omitted @ 1..) => format!("…{}", shown[omitted..].iter().collect::<String>()),
        _ => shown.iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: u8 = 1;
    const CORE: u8 = 2;

    /// The program of one function: where it begins, then for each row its file, how many lines it
    /// is behind the row before, and its bytes of code.
    fn function(address: u32, rows: &[(u8, i8, u8)]) -> Vec<u8> {
        let mut program = vec![0, 5, 2];
        program.extend(address.to_le_bytes());
        for &(file, lines, bytes) in rows {
            let lines = lines as u8 & 0x7f;
            program.extend([4, file, 3, lines, 1, 2, bytes]);
        }
        program.extend([0, 1, 1]);
        program
    }

    /// A unit of version 4 with the files `src/lib.rs` and `/rustc/core.rs`.
    fn unit(program: &[u8]) -> Vec<u8> {
        let mut head = vec![1, 1, 1, -5_i8 as u8, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
        head.extend(b"src\0\0lib.rs\0\x01\0\0/rustc/core.rs\0\0\0\0\0");
        let mut unit = vec![4, 0];
        unit.extend((head.len() as u32).to_le_bytes());
        unit.extend(head);
        unit.extend(program);
        let mut lines = (unit.len() as u32).to_le_bytes().to_vec();
        lines.extend(unit);
        lines
    }

    fn example() -> Vec<u8> {
        let kept = function(100, &[(LIB, 9, 10), (CORE, 40, 10), (LIB, -30, 10)]);
        let removed = function(0, &[(LIB, 50, 120)]);
        let mut lines = unit(&[removed, kept].concat());
        lines.extend(unit(&function(300, &[(CORE, 6, 10)])));
        lines
    }

    #[test]
    fn an_address_has_the_line_of_the_project_that_is_nearest() {
        let table = Table::of(&example(), &[], 1000);
        let at = |address| table.at(address);
        assert_eq!(at(99), None, "the function at 0 was removed");
        assert_eq!(at(100).as_deref(), Some("src/lib.rs:10"));
        assert_eq!(at(109).as_deref(), Some("src/lib.rs:10"));
        assert_eq!(at(110).as_deref(), Some("near src/lib.rs:10"));
        assert_eq!(at(125).as_deref(), Some("src/lib.rs:20"));
        assert_eq!(at(130), None, "behind the end of the function");
        assert_eq!(at(305).as_deref(), Some("/rustc/core.rs:7"));
        assert_eq!(at(u32::MAX), None);
    }

    #[test]
    fn the_modules_of_a_component_have_their_own_tables() {
        let quoted: String = example().iter().map(|byte| format!("\\{byte:02x}")).collect();
        let body = "nop ".repeat(400);
        let text = format!(
            "(component (core module (func)) (core module (func {body}) (@custom \".debug_line\" \"{quoted}\")))"
        );
        let wasm = wat::parse_str(text).unwrap();
        let lines = SourceLines::of(&wasm);
        assert_eq!(lines.0.len(), 1);
        let code = lines.0[0].code.clone();
        assert_eq!(lines.at(code.start + 125).as_deref(), Some("src/lib.rs:20"));
        assert_eq!(lines.at(code.start - 1), None);
        assert_eq!(lines.at(code.end), None);
    }

    #[test]
    fn damaged_tables_are_read_as_far_as_they_go() {
        let lines = example();
        for cut in 0..lines.len() {
            Table::of(&lines[..cut], &[], 1000).at(110);
        }
        for at in 0..lines.len() {
            for bit in 0..8 {
                let mut flipped = lines.clone();
                flipped[at] ^= 1 << bit;
                Table::of(&flipped, &[], 1000).at(110);
            }
        }
    }

    #[test]
    fn a_table_is_bounded() {
        let rows = vec![(LIB, 1, 1); ROWS_MAX + 10];
        let table = Table::of(&unit(&function(100, &rows)), &[], 1 << 30);
        assert!(table.rows.len() <= ROWS_MAX);
        let mut long = unit(&[]);
        long[6..10].copy_from_slice(&(HEAD_BYTES_MAX as u32 + 1).to_le_bytes());
        assert!(Table::of(&long, &[], 1000).rows.is_empty());
        let padding = "\\00".repeat(BYTES_MAX + 1);
        let text = format!("(component (core module (func) (@custom \".debug_line\" \"{padding}\")))");
        assert!(SourceLines::of(&wat::parse_str(text).unwrap()).0.is_empty());
    }
}
