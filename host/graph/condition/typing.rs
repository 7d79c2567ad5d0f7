//! The check of a condition when the policy is loaded: names must be known, and operands have the
//! right type.

use super::expression::{Arithmetic, Comparison, Expr, Function, Node, TensorRef, Wanted};
use super::fault::ConditionFault;
use super::{Condition, ELEMENTS_MAX};
use crate::error::Kind;
use crate::predict::{Datatype, ShapeSpec};

/// What a condition may name.
pub trait Scope {
    /// Returns the datatype and shape of a tensor, or why it cannot be named.
    fn tensor(&self, of: &TensorRef) -> Result<(Datatype, ShapeSpec), String>;

    /// Returns an error if there is no such step.
    fn step(&self, name: &str) -> Result<(), String>;

    /// Returns true if the first dimension of every tensor is one row.
    fn is_one_row(&self) -> bool;
}

#[derive(Clone, Debug, PartialEq)]
enum Type {
    Bool,
    /// The datatype, if the number is an element of a tensor.
    Number(Option<Datatype>),
    Text,
    Null,
    /// `STEP.error`
    Error,
    /// The type is known only when a request arrives.
    Param,
}

impl Type {
    fn describe(&self) -> String {
        match self {
            Type::Bool => "a boolean".to_owned(),
            Type::Number(Some(datatype)) => format!("a number ({})", datatype.as_str()),
            Type::Number(None) => "a number".to_owned(),
            Type::Text => "a text".to_owned(),
            Type::Null => "null".to_owned(),
            Type::Error => "an error kind".to_owned(),
            Type::Param => "a parameter".to_owned(),
        }
    }
}

type Checked<T> = Result<T, ConditionFault>;

/// Checks the types, and records the type that each parameter is compared with. Must run before
/// `evaluate`.
pub fn check(condition: &mut Condition, scope: &dyn Scope) -> Checked<()> {
    boolean(&mut condition.root, scope)
}

fn boolean(node: &mut Node, scope: &dyn Scope) -> Checked<()> {
    match type_of(node, scope)? {
        Type::Bool => Ok(()),
        Type::Param => {
            want(node, Wanted::Boolean);
            Ok(())
        }
        other => {
            let message = format!("expected a boolean, found {}", other.describe());
            Err(ConditionFault::new(node.at.clone(), message).hint("compare it, as in x.y[0] > 0.5"))
        }
    }
}

fn want(node: &mut Node, what: Wanted) {
    if let Expr::Param { wanted, .. } = &mut node.expr {
        *wanted = Some(what);
    }
}

fn number(node: &mut Node, scope: &dyn Scope) -> Checked<Option<Datatype>> {
    match type_of(node, scope)? {
        Type::Number(datatype) => Ok(datatype),
        Type::Param => {
            want(node, Wanted::Number);
            Ok(None)
        }
        other => {
            let message = format!("expected a number, found {}", other.describe());
            Err(ConditionFault::new(node.at.clone(), message))
        }
    }
}

fn type_of(node: &mut Node, scope: &dyn Scope) -> Checked<Type> {
    let at = node.at.clone();
    let fault = |message: String| ConditionFault::new(at.clone(), message);
    Ok(match &mut node.expr {
        Expr::Bool(_) => Type::Bool,
        Expr::Int(_) | Expr::Float(_) | Expr::Bucket => Type::Number(None),
        Expr::Text(_) => Type::Text,
        Expr::Null => Type::Null,
        Expr::Param { .. } => Type::Param,
        Expr::Ran(step) => scope.step(step).map(|()| Type::Bool).map_err(fault)?,
        Expr::ErrorOf(step) => scope.step(step).map(|()| Type::Error).map_err(fault)?,
        Expr::Has(of) => scope.tensor(of).map(|_| Type::Bool).map_err(fault)?,
        Expr::Tensor { of, index } => {
            let (datatype, shape) = scope.tensor(of).map_err(&fault)?;
            element(of, index, datatype, &shape, scope.is_one_row()).map_err(|(message, hint)| {
                let fault = fault(message);
                if hint.is_empty() { fault } else { fault.hint(hint) }
            })?
        }
        Expr::Call(function, inner) => call(*function, inner, scope)?,
        Expr::Not(inner) => {
            boolean(inner, scope)?;
            Type::Bool
        }
        Expr::Negate(inner) => Type::Number(number(inner, scope)?.map(|_| Datatype::Fp64)),
        Expr::Or(parts) | Expr::And(parts) => {
            parts.iter_mut().try_for_each(|part| boolean(part, scope))?;
            Type::Bool
        }
        Expr::Sum(first, rest) | Expr::Product(first, rest) => {
            number(first, scope)?;
            for (arithmetic, part) in rest {
                number(part, scope)?;
                let by_zero = matches!(part.expr, Expr::Int(0))
                    && matches!(arithmetic, Arithmetic::Divide | Arithmetic::Remainder);
                if by_zero {
                    return Err(ConditionFault::new(part.at.clone(), "a division by zero"));
                }
            }
            Type::Number(None)
        }
        Expr::Compare(comparison, left, right) => {
            let is_equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
            compare(left, right, is_equality, scope)?;
            Type::Bool
        }
    })
}

fn compare(left: &mut Node, right: &mut Node, is_equality: bool, scope: &dyn Scope) -> Checked<()> {
    let types = (type_of(left, scope)?, type_of(right, scope)?);
    let (start, end) = (left.at.start, right.at.end);
    let refused = |message: String| ConditionFault::new(start..end, message);
    let wanted = |known: &Type| match known {
        Type::Bool => Wanted::Boolean,
        Type::Text => Wanted::Text,
        _ => Wanted::Number,
    };
    match &types {
        (Type::Number(a), Type::Number(b)) => {
            // A literal is rounded to the datatype of the element that it is compared with.
            round_literal(left, *b);
            round_literal(right, *a);
        }
        (Type::Text, Type::Text) | (Type::Param, Type::Param) => {}
        (Type::Bool, Type::Bool) if is_equality => {}
        (Type::Param, known @ (Type::Bool | Type::Number(_) | Type::Text)) => want(left, wanted(known)),
        (known @ (Type::Bool | Type::Number(_) | Type::Text), Type::Param) => want(right, wanted(known)),
        (Type::Error, Type::Null | Type::Error) | (Type::Null, Type::Error) if is_equality => {}
        (Type::Error, Type::Text) if is_equality => error_kind(right)?,
        (Type::Text, Type::Error) if is_equality => error_kind(left)?,
        (a, b) => {
            let how = if is_equality { "compared" } else { "ordered" };
            return Err(refused(format!("{} and {} cannot be {how}", a.describe(), b.describe())));
        }
    }
    Ok(())
}

fn round_literal(node: &mut Node, datatype: Option<Datatype>) {
    let Some(datatype) = datatype else { return };
    match &mut node.expr {
        Expr::Float(value) => *value = rounded(*value, datatype),
        Expr::Negate(inner) => round_literal(inner, Some(datatype)),
        _ => {}
    }
}

fn error_kind(node: &Node) -> Checked<()> {
    let Expr::Text(text) = &node.expr else { return Ok(()) };
    let known = || Kind::ALL.iter().map(|kind| kind.as_str());
    if known().any(|kind| *kind == **text) {
        return Ok(());
    }
    let hint = crate::error::did_you_mean(text, known());
    let fault = ConditionFault::new(node.at.clone(), format!("no error kind \"{text}\"{hint}"));
    Err(fault.hint(format!("kinds: {}", known().collect::<Vec<_>>().join(", "))))
}

/// Returns the type of an element, or a fault and its hint if there is no such element.
fn element(
    of: &TensorRef,
    index: &[u64],
    datatype: Datatype,
    shape: &ShapeSpec,
    is_one_row: bool,
) -> Result<Type, (String, String)> {
    let shown = format!("{of} is {}{shape}", datatype.as_str());
    if is_one_row && index.first().is_some_and(|&index| index > 0) {
        let hint = "with rows = \"each\" the first dimension has one row".to_owned();
        return Err((format!("{shown}: index {} is outside of dimension 0", index[0]), hint));
    }
    // Whether a tensor of unknown rank has the element is known when it is there.
    let Some(shape) = shape.dimensions() else { return Ok(of_datatype(datatype)) };
    if index.len() != shape.len() {
        let many = "any(), all(), min(), max() and size() take a whole tensor";
        return Err(match index.len() < shape.len() {
            true => (format!("{shown}: give an index for each dimension"), many.to_owned()),
            false => (format!("{shown}: there are more indices than dimensions"), String::new()),
        });
    }
    for (place, (&index, &dimension)) in index.iter().zip(shape).enumerate() {
        if place == 0 && is_one_row {
            continue;
        }
        if place == 0 && dimension < 0 {
            let message = format!("{shown}: row {index} of a free first dimension would decide for all rows");
            let hint = "use any(), all(), min() or max(), or set rows = \"each\" on the pipeline";
            return Err((message, hint.to_owned()));
        } else if dimension >= 0 && index >= dimension as u64 {
            return Err((format!("{shown}: index {index} is outside of dimension {place}"), String::new()));
        }
    }
    Ok(of_datatype(datatype))
}

fn of_datatype(datatype: Datatype) -> Type {
    match datatype {
        Datatype::Bool => Type::Bool,
        Datatype::Bytes => Type::Text,
        number => Type::Number(Some(number)),
    }
}

fn call(function: Function, inner: &Node, scope: &dyn Scope) -> Checked<Type> {
    let fault = |message: String| ConditionFault::new(inner.at.clone(), message);
    let Expr::Tensor { of, index } = &inner.expr else {
        let message = format!("{}() takes a tensor", function.as_str());
        return Err(fault(message).hint("such as any(STEP.OUTPUT)"));
    };
    if !index.is_empty() {
        return Err(fault(format!("{}() takes a whole tensor, without an index", function.as_str())));
    }
    let (datatype, shape) = scope.tensor(of).map_err(&fault)?;
    let count = |dimensions: &[i64]| {
        dimensions
            .iter()
            .try_fold(1_i64, |count, &size| if size < 0 { None } else { count.checked_mul(size) })
    };
    let elements = shape.dimensions().and_then(count);
    if function != Function::Size && elements.is_some_and(|count| count > ELEMENTS_MAX as i64) {
        let message = format!(
            "{of} has {} elements; {}() looks at up to {}",
            elements.unwrap_or_default(),
            function.as_str(),
            ELEMENTS_MAX
        );
        return Err(fault(message).hint("let a model reduce it"));
    }
    let wanted = match function {
        Function::Any | Function::All => datatype == Datatype::Bool,
        Function::Min | Function::Max => !matches!(datatype, Datatype::Bool | Datatype::Bytes),
        Function::Size => true,
    };
    if !wanted {
        let takes = if matches!(function, Function::Any | Function::All) { "BOOL" } else { "numbers" };
        let message = format!("{}() takes {takes}, and {of} is {}", function.as_str(), datatype.as_str());
        return Err(fault(message));
    }
    Ok(match function {
        Function::Any | Function::All => Type::Bool,
        Function::Min | Function::Max => Type::Number(Some(datatype)),
        Function::Size => Type::Number(None),
    })
}

/// Rounds a number to the precision of a datatype, so that a literal can be compared with an
/// element.
fn rounded(value: f64, datatype: Datatype) -> f64 {
    match datatype {
        Datatype::Fp16 => half::f16::from_f64(value).to_f64(),
        Datatype::Bf16 => half::bf16::from_f64(value).to_f64(),
        Datatype::Fp32 => f64::from(value as f32),
        _ => value,
    }
}
