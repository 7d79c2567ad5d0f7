//! The elements of one tensor while its JSON is read: their final bytes, and the shape of the
//! nested lists.

use super::alignment::AlignedBuffer;
use super::datatype::Datatype;
use super::decimal;
use super::shape::Shape;
use super::tensor::append_element;
use std::fmt;

/// Why an element or a list is refused.
pub(super) type Refusal = String;

pub(super) struct Elements {
    pub datatype: Datatype,
    pub data: AlignedBuffer,
    pub data_bytes_max: usize,
    /// The data exceed `data_bytes_max`.
    pub is_over: bool,
    pub shape: Shape,
    /// The nesting depth of elements, known from the first one.
    pub leaf_depth: Option<usize>,
    /// The index in each open list.
    pub path: Shape,
    pub depth_max: usize,
}

impl Elements {
    pub fn open(&mut self) -> std::result::Result<(), Refusal> {
        let depth = self.path.len();
        if depth >= self.depth_max {
            let limit = self.depth_max;
            return Err(format!(
                "lists are nested more than {limit} deep: JSON nesting depth exceeds maximum allowed limit ({limit})"
            ));
        }
        if self.leaf_depth.is_some_and(|leaf| depth >= leaf) {
            return Err("expected an element, got a list".to_owned());
        }
        if self.shape.len() == depth {
            self.shape.push(-1);
        }
        self.path.push(0);
        Ok(())
    }

    pub fn close(&mut self, count: i64) -> std::result::Result<(), Refusal> {
        self.path.pop();
        let depth = self.path.len();
        match self.shape[depth] {
            known if known >= 0 && known != count => {
                Err(format!("lists of unequal length: expected {known} elements, got {count}"))
            }
            _ => {
                self.shape[depth] = count;
                Ok(())
            }
        }
    }

    fn leaf(&mut self) -> std::result::Result<(), Refusal> {
        let depth = self.path.len();
        match self.leaf_depth {
            None if self.shape.len() == depth => self.leaf_depth = Some(depth),
            Some(leaf) if leaf == depth => {}
            _ => return Err("expected a list, got an element".to_owned()),
        }
        // The budget's own error replaces this one.
        if self.is_over { Err("over the budget".to_owned()) } else { Ok(()) }
    }

    /// Appends the bytes of an element if they fit into the budget.
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.data_bytes_max - self.data.len() {
            self.is_over = true;
        } else {
            self.data.tail().extend_from_slice(bytes);
        }
    }

    pub fn mismatch(&self, got: impl fmt::Display) -> Refusal {
        let wanted = match self.datatype {
            Datatype::Bool => "true or false for BOOL".to_owned(),
            Datatype::Bytes => "a string for BYTES".to_owned(),
            datatype if is_float(datatype) => format!("a number for {}", datatype.as_str()),
            datatype => format!("a whole number for {}", datatype.as_str()),
        };
        // The texts that clients of the Open Inference Protocol look for.
        let known = match self.datatype {
            Datatype::Bool => ": attempt to access JSON non-boolean as boolean",
            Datatype::Bytes => ": attempt to access JSON non-string as string",
            _ => "",
        };
        format!("expected {wanted}, got {got}{known}")
    }

    pub fn boolean(&mut self, value: bool) -> std::result::Result<(), Refusal> {
        self.leaf()?;
        if self.datatype != Datatype::Bool {
            return Err(self.mismatch(value));
        }
        self.put(&[u8::from(value)]);
        Ok(())
    }

    pub fn string(&mut self, value: &str) -> std::result::Result<(), Refusal> {
        self.leaf()?;
        if self.datatype != Datatype::Bytes {
            let start: String = value.chars().take(20).collect();
            return Err(self.mismatch(format_args!("the string {start:?}")));
        }
        if 4 + value.len() > self.data_bytes_max - self.data.len() {
            self.is_over = true;
            return Ok(());
        }
        append_element(self.data.tail(), value.as_bytes()).map_err(|error| error.message().to_owned())
    }

    pub fn number(&mut self, token: &str) -> std::result::Result<(), Refusal> {
        self.leaf()?;
        macro_rules! float {
            ($read:expr) => {
                match $read {
                    Some(value) if value.is_finite() => {
                        self.put(&value.to_le_bytes());
                        Ok(())
                    }
                    _ => Err(self.no_float(token)),
                }
            };
        }
        match self.datatype {
            Datatype::Fp64 => float!(token.parse::<f64>().ok()),
            Datatype::Fp32 => float!(token.parse::<f32>().ok()),
            Datatype::Fp16 => float!(decimal::to_f16(token)),
            Datatype::Bf16 => float!(decimal::to_bf16(token)),
            _ => self.integer(token),
        }
    }

    fn integer(&mut self, token: &str) -> std::result::Result<(), Refusal> {
        let signed = token.parse::<i64>().map(i128::from);
        let Ok(value) = signed.or_else(|_| token.parse::<u64>().map(i128::from)) else {
            return Err(self.no_float(token));
        };
        macro_rules! put {
            ($($datatype:ident: $rust:ty),*) => {
                match self.datatype {
                    $(Datatype::$datatype => <$rust>::try_from(value).map(|value| self.put(&value.to_le_bytes())),)*
                    _ => return Err(self.mismatch(value)),
                }
            };
        }
        let put = put!(
            Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64
        );
        put.map_err(|_| {
            let (name, range) = (self.datatype.as_str(), range(self.datatype));
            format!("{value} is out of range for {name} ({})", range.unwrap_or_default())
        })
    }

    /// Returns why a number is refused that is not an integer of 64 bits, or is too large.
    fn no_float(&self, token: &str) -> Refusal {
        let name = self.datatype.as_str();
        match token.parse::<f64>() {
            Err(_) => "invalid number".to_owned(),
            Ok(value) if value.is_infinite() => "number out of range".to_owned(),
            Ok(value) if is_float(self.datatype) => format!("{value:e} is out of range for {name}"),
            // Includes integers of more than 64 bits.
            Ok(value) => match range(self.datatype).filter(|_| value.abs() >= i64::MAX as f64) {
                Some(range) => format!("{value:e} is out of range for {name} ({range})"),
                None if value.fract() == 0.0 => {
                    let mismatch = self.mismatch(format_args!("the number {value:?}"));
                    format!("{mismatch}; write it without a point and an exponent: {}", value as i64)
                }
                None => self.mismatch(format_args!("the number {value:?}")),
            },
        }
    }
}

/// Returns the range of an integer datatype.
fn range(datatype: Datatype) -> Option<String> {
    macro_rules! range {
        ($($datatype:ident: $rust:ty),*) => {
            match datatype {
                $(Datatype::$datatype => Some(format!("{} to {}", <$rust>::MIN, <$rust>::MAX)),)*
                _ => None,
            }
        };
    }
    range!(Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64, Int8: i8, Int16: i16, Int32: i32, Int64: i64)
}

fn is_float(datatype: Datatype) -> bool {
    matches!(datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64)
}
