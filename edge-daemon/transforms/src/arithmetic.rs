//! The short way for arithmetic: `+ - * /` over columns of numbers and literals, as in `temp_c * 1.8 + 32`. Gives the
//! engine's answer without the engine, or none: what is not a number, overflows or divides by zero is the engine's to
//! judge. A property test holds it to that.

use std::cmp::Ordering;

use bus_schema::data::{Cell, Value};
use rhai::{AST, Expr, FnCallExpr, Stmt};

use crate::engine::compare_int_float;

/// A number as expressions have them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

/// An expression simple enough.
#[derive(Debug)]
pub(crate) enum Arithmetic {
    Column(usize),
    Literal(Number),
    Minus(Box<Arithmetic>),
    Both(Sign, Box<[Arithmetic; 2]>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign {
    Plus,
    Minus,
    Times,
    Over,
}

impl Arithmetic {
    /// The expression as arithmetic over `columns`, or `None` when it needs the engine.
    pub(crate) fn of(ast: &AST, columns: &[String]) -> Option<Self> {
        match ast.statements() {
            [Stmt::Expr(expression)] => Self::of_expression(expression, columns),
            // What an expression becomes that is one operator.
            [Stmt::FnCall(call, _)] => Self::of_call(call, columns),
            _ => None,
        }
    }

    /// A part of an expression, likewise.
    pub(crate) fn of_expression(expression: &Expr, columns: &[String]) -> Option<Self> {
        match expression {
            Expr::Variable(named, ..) => {
                let place = columns.iter().position(|column| *column == *named.1);
                place.map(Arithmetic::Column)
            }
            Expr::IntegerConstant(v, _) => Some(Arithmetic::Literal(Number::Int(*v))),
            Expr::FloatConstant(v, _) => Some(Arithmetic::Literal(Number::Float(**v))),
            Expr::FnCall(call, _) => Self::of_call(call, columns),
            _ => None,
        }
    }

    fn of_call(call: &FnCallExpr, columns: &[String]) -> Option<Self> {
        if !call.is_operator_call() {
            return None;
        }
        let part = |part: &Expr| Self::of_expression(part, columns);
        match (call.name.as_str(), call.args.as_slice()) {
            ("-", [inner]) => Some(Arithmetic::Minus(Box::new(part(inner)?))),
            (sign, [left, right]) => {
                let sign = match sign {
                    "+" => Sign::Plus,
                    "-" => Sign::Minus,
                    "*" => Sign::Times,
                    "/" => Sign::Over,
                    _ => return None,
                };
                Some(Arithmetic::Both(sign, Box::new([part(left)?, part(right)?])))
            }
            _ => None,
        }
    }

    /// The result for a row, or `None` when the engine has to decide (or to say what is wrong).
    pub(crate) fn answer<'a>(&self, cell: &impl Fn(usize) -> Cell<'a>) -> Option<Number> {
        match self {
            Arithmetic::Column(column) => Number::of(cell(*column)),
            Arithmetic::Literal(number) => Some(*number),
            Arithmetic::Minus(inner) => match inner.answer(cell)? {
                Number::Int(v) => v.checked_neg().map(Number::Int),
                Number::Float(v) => Some(Number::Float(-v)),
            },
            Arithmetic::Both(sign, parts) => sign.apply(parts[0].answer(cell)?, parts[1].answer(cell)?),
        }
    }
}

impl Number {
    fn of(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::I64(v) => Some(Number::Int(v)),
            Cell::U64(v) => i64::try_from(v).ok().map(Number::Int),
            Cell::F32(v) => Some(Number::Float(f64::from(v))),
            Cell::F64(v) => Some(Number::Float(v)),
            _ => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Int(v) => v as f64,
            Number::Float(v) => v,
        }
    }

    /// How it stands to another one, exactly. `None` when one of them is not a number.
    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            (Number::Int(a), Number::Float(b)) => compare_int_float(a, b),
            (Number::Float(a), Number::Int(b)) => compare_int_float(b, a).map(Ordering::reverse),
            (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
        }
    }

    /// As a value of a record.
    pub(crate) fn value(self) -> Value {
        match self {
            Number::Int(v) => Value::I64(v),
            Number::Float(v) => Value::F64(v),
        }
    }
}

impl Sign {
    fn apply(self, left: Number, right: Number) -> Option<Number> {
        if let (Number::Int(a), Number::Int(b)) = (left, right) {
            let exact = match self {
                Sign::Plus => a.checked_add(b),
                Sign::Minus => a.checked_sub(b),
                Sign::Times => a.checked_mul(b),
                Sign::Over => a.checked_div(b),
            };
            return exact.map(Number::Int);
        }
        let (a, b) = (left.float(), right.float());
        let float = match self {
            Sign::Plus => a + b,
            Sign::Minus => a - b,
            Sign::Times => a * b,
            // Divided by zero: as the engine takes it.
            Sign::Over if b == 0.0 => return None,
            Sign::Over => a / b,
        };
        Some(Number::Float(float))
    }
}
