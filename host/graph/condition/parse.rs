//! Parses a condition, by recursive descent of limited depth.

use super::expression::{Arithmetic, Comparison, Expr, Function, Node, TensorRef};
use super::fault::ConditionFault;
use super::token::{self, Token};
use std::ops::Range;
use std::sync::Arc;

/// The longest condition, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The deepest nesting of parentheses and operators.
const NESTING_MAX: usize = 32;

type Parsed<T> = Result<T, ConditionFault>;

struct Parser<'a> {
    text: &'a str,
    /// The range of the next token.
    at: Range<usize>,
    token: Token<'a>,
    /// The end of the previous token.
    before: usize,
    depth: usize,
}

pub(super) fn parse(text: &str) -> Parsed<Node> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the condition has {} bytes; at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(ConditionFault::new(0..0, message).hint("let a model decide, and use its output"));
    }
    let mut parser = Parser { text, at: 0..0, token: Token::End, before: 0, depth: 0 };
    parser.advance()?;
    let root = parser.or()?;
    match parser.token {
        Token::End => Ok(root),
        _ => Err(parser.unexpected("an operator or the end of the condition")),
    }
}

impl Parser<'_> {
    fn advance(&mut self) -> Parsed<()> {
        self.before = self.at.end;
        let rest = &self.text[self.at.end..];
        let start = self.at.end + (rest.len() - rest.trim_start().len());
        let rest = &self.text[start..];
        let (token, length) = token::read(rest).map_err(|message| {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            ConditionFault::new(start..start + length, message)
        })?;
        self.at = start..start + length;
        self.token = token;
        Ok(())
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    fn takes(&mut self, sign: &str) -> Parsed<bool> {
        let found = self.is(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign)? { Ok(()) } else { Err(self.unexpected(&format!("\"{sign}\""))) }
    }

    fn unexpected(&self, wanted: &str) -> ConditionFault {
        let found = match &self.token {
            Token::End => "the end of the condition".to_owned(),
            _ => format!("\"{}\"", &self.text[self.at.clone()]),
        };
        let fault = ConditionFault::new(self.at.clone(), format!("expected {wanted}, found {found}"));
        match &self.token {
            Token::Name("and") => fault.hint("write && for \"and\""),
            Token::Name("or") => fault.hint("write || for \"or\""),
            Token::Sign("?") => fault.hint("there is no ?: here; write two steps with conditions"),
            _ => fault,
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= NESTING_MAX {
            let message = format!("the condition is nested more than {NESTING_MAX} deep");
            return Err(ConditionFault::new(self.at.clone(), message));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn node(&self, start: usize, expr: Expr) -> Node {
        Node { expr, at: start..self.before }
    }

    fn or(&mut self) -> Parsed<Node> {
        self.list("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Parsed<Node> {
        self.list("&&", Self::comparison, Expr::And)
    }

    fn list(
        &mut self,
        sign: &str,
        part: fn(&mut Self) -> Parsed<Node>,
        make: fn(Vec<Node>) -> Expr,
    ) -> Parsed<Node> {
        let start = self.at.start;
        let first = part(self)?;
        if !self.is(sign) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.takes(sign)? {
            parts.push(part(self)?);
        }
        Ok(self.node(start, make(parts)))
    }

    fn comparison(&mut self) -> Parsed<Node> {
        let start = self.at.start;
        let left = self.sum()?;
        let Some(comparison) = self.comparison_sign() else { return Ok(left) };
        self.advance()?;
        let right = self.sum()?;
        if self.comparison_sign().is_some() {
            let fault = ConditionFault::new(self.at.clone(), "comparisons cannot be chained");
            return Err(fault.hint("join two comparisons with &&"));
        }
        Ok(self.node(start, Expr::Compare(comparison, left.into(), right.into())))
    }

    fn comparison_sign(&self) -> Option<Comparison> {
        let Token::Sign(sign) = self.token else { return None };
        Some(match sign {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn sum(&mut self) -> Parsed<Node> {
        let signs = [("+", Arithmetic::Add), ("-", Arithmetic::Subtract)];
        self.chain(&signs, Self::product, Expr::Sum)
    }

    fn product(&mut self) -> Parsed<Node> {
        let signs = [("*", Arithmetic::Multiply), ("/", Arithmetic::Divide), ("%", Arithmetic::Remainder)];
        self.chain(&signs, Self::unary, Expr::Product)
    }

    fn chain(
        &mut self,
        signs: &[(&str, Arithmetic)],
        part: fn(&mut Self) -> Parsed<Node>,
        make: fn(Box<Node>, Vec<(Arithmetic, Node)>) -> Expr,
    ) -> Parsed<Node> {
        let start = self.at.start;
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some((_, arithmetic)) = signs.iter().find(|(sign, _)| self.is(sign)) {
            self.advance()?;
            rest.push((*arithmetic, part(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(self.node(start, make(first.into(), rest)))
    }

    fn unary(&mut self) -> Parsed<Node> {
        let start = self.at.start;
        for (sign, make) in [("!", Expr::Not as fn(Box<Node>) -> Expr), ("-", Expr::Negate)] {
            if self.takes(sign)? {
                let inner = self.nested(Self::unary)?;
                return Ok(self.node(start, make(inner.into())));
            }
        }
        self.primary()
    }

    fn primary(&mut self) -> Parsed<Node> {
        let start = self.at.start;
        let expr = match std::mem::replace(&mut self.token, Token::End) {
            Token::Int(value) => self.then(Expr::Int(value))?,
            Token::Float(value) => self.then(Expr::Float(value))?,
            Token::Text(text) => self.then(Expr::Text(text.into()))?,
            Token::Name("true") => self.then(Expr::Bool(true))?,
            Token::Name("false") => self.then(Expr::Bool(false))?,
            Token::Name("null") => self.then(Expr::Null)?,
            Token::Name(name) => {
                self.advance()?;
                return self.named(start, name);
            }
            Token::Sign("(") => {
                self.advance()?;
                let inner = self.nested(Self::or)?;
                self.expect(")")?;
                return Ok(Node { at: start..self.before, ..inner });
            }
            other => {
                self.token = other;
                return Err(self.unexpected("a value"));
            }
        };
        Ok(self.node(start, expr))
    }

    fn then(&mut self, expr: Expr) -> Parsed<Expr> {
        self.advance()?;
        Ok(expr)
    }

    /// Parses what begins with a name: a function, a step, `params`, `request`, `self` or `input`.
    fn named(&mut self, start: usize, name: &str) -> Parsed<Node> {
        if self.is("(") {
            return self.function(start, name);
        }
        let by_index = self.is("[");
        let member = self.member(start, name)?;
        let expr = match (name, &*member) {
            ("params", _) => Expr::Param { name: member, wanted: None },
            ("request", "bucket") => Expr::Bucket,
            ("request", other) => {
                let fault = ConditionFault::new(start..self.before, format!("request has no \"{other}\""));
                return Err(fault.hint("request.bucket is a number from 0 to 99 that stays with the caller"));
            }
            ("self", _) => Expr::Tensor { of: TensorRef::Own(member), index: self.index()? },
            ("input", _) => Expr::Tensor { of: TensorRef::Input(member), index: self.index()? },
            (step, "ran") if !by_index => Expr::Ran(step.into()),
            (step, "error") if !by_index => Expr::ErrorOf(step.into()),
            (step, _) => {
                let of = TensorRef::Output { step: step.into(), output: member };
                Expr::Tensor { of, index: self.index()? }
            }
        };
        Ok(self.node(start, expr))
    }

    /// `.NAME` or `["NAME"]`
    fn member(&mut self, start: usize, of: &str) -> Parsed<Arc<str>> {
        if self.takes(".")? {
            let Token::Name(name) = self.token else { return Err(self.unexpected("a name")) };
            self.advance()?;
            return Ok(name.into());
        }
        if self.takes("[")? {
            let Token::Text(name) = &self.token else { return Err(self.unexpected("a name in quotes")) };
            let name = name.as_str().into();
            self.advance()?;
            self.expect("]")?;
            return Ok(name);
        }
        let fault = ConditionFault::new(start..self.before, format!("\"{of}\" is incomplete"));
        if of == "not" {
            return Err(fault.hint("write ! for \"not\""));
        }
        Err(fault.hint(format!("write params.{of} for a parameter, or {of}.OUTPUT for a tensor of a step")))
    }

    /// `[0][1]`
    fn index(&mut self) -> Parsed<Vec<u64>> {
        let mut index = Vec::new();
        while self.takes("[")? {
            let value = match self.token {
                Token::Int(value) => u64::try_from(value).ok(),
                _ => None,
            };
            let Some(value) = value else { return Err(self.unexpected("an index, a whole number from 0")) };
            index.push(value);
            self.advance()?;
            self.expect("]")?;
        }
        Ok(index)
    }

    fn function(&mut self, start: usize, name: &str) -> Parsed<Node> {
        let named = start..self.before;
        self.expect("(")?;
        if name == "has" {
            let inner = self.nested(Self::or)?;
            self.expect(")")?;
            let Expr::Tensor { of, index } = inner.expr else {
                let fault = ConditionFault::new(inner.at, "has() takes a tensor");
                return Err(fault.hint("write has(STEP.OUTPUT) or has(input.NAME)"));
            };
            if !index.is_empty() {
                return Err(ConditionFault::new(inner.at, "has() takes a whole tensor, without an index"));
            }
            return Ok(self.node(start, Expr::Has(of)));
        }
        let Some((_, function)) = Function::ALL.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = Function::ALL.iter().map(|(name, _)| *name).chain(["has"]).collect();
            let hint = match name {
                "len" | "length" | "count" => " (did you mean \"size\"?)".to_owned(),
                _ => crate::error::did_you_mean(name, known.iter().copied()),
            };
            let fault = ConditionFault::new(named, format!("no function \"{name}\"{hint}"));
            return Err(fault.hint(format!("functions: {}", known.join(", "))));
        };
        let inner = self.nested(Self::or)?;
        self.expect(")")?;
        Ok(self.node(start, Expr::Call(*function, inner.into())))
    }
}
