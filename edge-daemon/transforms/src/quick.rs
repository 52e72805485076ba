//! The short way for the expressions most filters are: comparisons of a column with a literal, or of arithmetic, joined by
//! `&&`, `||` and `!`. Gives the engine's answer without the engine, or none; a property test holds it to that.

use std::cmp::Ordering;

use bus_schema::data::Cell;
use rhai::{AST, Expr, FnCallExpr, Stmt};

use crate::{arithmetic::Arithmetic, engine::compare_int_float};

/// An expression simple enough.
#[derive(Debug)]
pub(crate) enum Test {
    Compare {
        column: usize,
        operator: Operator,
        literal: Literal,
    },
    /// Of numbers that stand in columns or are computed from them.
    CompareNumbers {
        left: Arithmetic,
        operator: Operator,
        right: Arithmetic,
    },
    /// A column that is true or false itself.
    Holds(usize),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl Test {
    /// The expression as a test over `columns`, or `None` when it needs the engine.
    pub(crate) fn of(ast: &AST, columns: &[String]) -> Option<Self> {
        match ast.statements() {
            [Stmt::Expr(expression)] => Self::of_expression(expression, columns),
            // What an expression becomes that is one operator.
            [Stmt::FnCall(call, _)] => Self::of_call(call, columns),
            _ => None,
        }
    }

    fn of_expression(expression: &Expr, columns: &[String]) -> Option<Self> {
        let all = |parts: &[Expr]| -> Option<Vec<Self>> {
            parts.iter().map(|part| Self::of_expression(part, columns)).collect()
        };
        match expression {
            Expr::Variable(..) => column_of(expression, columns).map(Test::Holds),
            Expr::And(parts, _) => all(parts).map(Test::All),
            Expr::Or(parts, _) => all(parts).map(Test::Any),
            Expr::FnCall(call, _) => Self::of_call(call, columns),
            _ => None,
        }
    }

    fn of_call(call: &FnCallExpr, columns: &[String]) -> Option<Self> {
        match (call.name.as_str(), call.args.as_slice()) {
            _ if !call.is_operator_call() => None,
            ("!", [inner]) => Self::of_expression(inner, columns).map(|inner| Test::Not(Box::new(inner))),
            (operator, [left, right]) => {
                let operator = Operator::of(operator)?;
                if let (Some(column), Some(literal)) = (column_of(left, columns), Literal::of(right)) {
                    return Some(Test::Compare {
                        column,
                        operator,
                        literal,
                    });
                }
                if let (Some(column), Some(literal)) = (column_of(right, columns), Literal::of(left)) {
                    return Some(Test::Compare {
                        column,
                        operator: operator.mirrored(),
                        literal,
                    });
                }
                Some(Test::CompareNumbers {
                    left: Arithmetic::of_expression(left, columns)?,
                    operator,
                    right: Arithmetic::of_expression(right, columns)?,
                })
            }
            _ => None,
        }
    }

    /// The answer for a row, or `None` when the engine has to decide (or to say what is wrong).
    pub(crate) fn answer<'a>(&self, cell: &impl Fn(usize) -> Cell<'a>) -> Option<bool> {
        match self {
            Test::Compare {
                column,
                operator,
                literal,
            } => operator.answer(cell(*column), literal),
            Test::CompareNumbers { left, operator, right } => {
                let order = left.answer(cell)?.compare(right.answer(cell)?);
                Some(operator.holds(order))
            }
            Test::Holds(column) => match cell(*column) {
                Cell::Bool(value) => Some(value),
                _ => None,
            },
            Test::Not(inner) => inner.answer(cell).map(|answer| !answer),
            Test::All(parts) => {
                for part in parts {
                    if !part.answer(cell)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            Test::Any(parts) => {
                for part in parts {
                    if part.answer(cell)? {
                        return Some(true);
                    }
                }
                Some(false)
            }
        }
    }
}

fn column_of(expression: &Expr, columns: &[String]) -> Option<usize> {
    match expression {
        Expr::Variable(named, ..) => columns.iter().position(|column| *column == *named.1),
        _ => None,
    }
}

impl Literal {
    fn of(expression: &Expr) -> Option<Self> {
        Some(match expression {
            Expr::Unit(_) => Literal::Null,
            Expr::BoolConstant(v, _) => Literal::Bool(*v),
            Expr::IntegerConstant(v, _) => Literal::Int(*v),
            Expr::FloatConstant(v, _) => Literal::Float(**v),
            Expr::StringConstant(v, _) => Literal::Text(v.to_string()),
            _ => return None,
        })
    }
}

/// How a value stands to a literal.
enum Relation {
    /// `None`: no order, as with NaN.
    Ordered(Option<Ordering>),
    /// Types that cannot be compared: unequal, and neither is less.
    Strangers,
}

impl Operator {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">" => Operator::Greater,
            ">=" => Operator::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The operator with its sides exchanged.
    fn mirrored(self) -> Self {
        match self {
            Operator::Less => Operator::Greater,
            Operator::LessOrEqual => Operator::GreaterOrEqual,
            Operator::Greater => Operator::Less,
            Operator::GreaterOrEqual => Operator::LessOrEqual,
            same => same,
        }
    }

    fn answer(self, cell: Cell<'_>, literal: &Literal) -> Option<bool> {
        let relation = match (cell, literal) {
            // Null equals null, and yet is neither "at least" nor "at most" itself.
            (Cell::Null, Literal::Null) => return Some(self == Operator::Equal),
            (Cell::Bool(a), Literal::Bool(b)) => Relation::Ordered(Some(a.cmp(b))),
            (Cell::I64(a), Literal::Int(b)) => Relation::Ordered(Some(a.cmp(b))),
            (Cell::I64(a), Literal::Float(b)) => Relation::Ordered(compare_int_float(a, *b)),
            (Cell::U64(a), literal) => return self.answer(Cell::I64(i64::try_from(a).ok()?), literal),
            (Cell::F32(a), literal) => return self.answer(Cell::F64(f64::from(a)), literal),
            (Cell::F64(a), Literal::Float(b)) => Relation::Ordered(a.partial_cmp(b)),
            (Cell::F64(a), Literal::Int(b)) => Relation::Ordered(compare_int_float(*b, a).map(Ordering::reverse)),
            (Cell::Text(a), Literal::Text(b)) => Relation::Ordered(Some(a.cmp(b))),
            (Cell::Null | Cell::Bool(_) | Cell::I64(_) | Cell::F64(_) | Cell::Text(_), _) => Relation::Strangers,
            _ => return None,
        };
        Some(match relation {
            Relation::Strangers => self == Operator::NotEqual,
            Relation::Ordered(order) => self.holds(order),
        })
    }

    /// Whether it is true of two values in this order; `None`: they have none.
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::NotEqual => order != Some(Ordering::Equal),
            Operator::Less => order.is_some_and(Ordering::is_lt),
            Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
            Operator::Greater => order.is_some_and(Ordering::is_gt),
            Operator::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
    use proptest::prelude::*;

    use crate::expression::Expression;

    fn literal() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("()".to_string()),
            any::<bool>().prop_map(|v| v.to_string()),
            (-3..4i64).prop_map(|v| v.to_string()),
            any::<i64>().prop_map(|v| v.to_string()),
            (-6..7i32).prop_map(|v| format!("{:?}", f64::from(v) / 2.0)),
            (-1e19..1e19f64).prop_map(|v| format!("{v:.1}")),
            "[ab]{0,2}".prop_map(|v| format!("{v:?}")),
        ]
    }

    fn expression() -> impl Strategy<Value = String> {
        let column = || prop_oneof![Just("a"), Just("b"), Just("c")];
        let operator = || prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
        let leaf = prop_oneof![
            8 => (column(), operator(), literal()).prop_map(|(c, o, l)| format!("{c} {o} {l}")),
            2 => (column(), operator(), literal()).prop_map(|(c, o, l)| format!("{l} {o} {c}")),
            1 => column().prop_map(str::to_string),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
                inner.prop_map(|a| format!("!({a})")),
            ]
        })
    }

    /// Arithmetic over the columns, some of it on what is no number.
    fn arithmetic() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            (0..4i64).prop_map(|v| v.to_string()),
            any::<u32>().prop_map(|v| (i64::from(v) << 31).to_string()),
            (0..7i32).prop_map(|v| format!("{:?}", f64::from(v) / 2.0)),
        ];
        let leaf = prop_oneof![3 => prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(str::to_string), 1 => number];
        leaf.prop_recursive(3, 8, 2, |inner| {
            let sign = prop_oneof![Just("+"), Just("-"), Just("*"), Just("/")];
            prop_oneof![
                4 => (inner.clone(), sign, inner.clone()).prop_map(|(a, s, b)| format!("({a} {s} {b})")),
                1 => inner.prop_map(|a| format!("(-{a})")),
            ]
        })
    }

    /// Floats bit for bit: `-0.0` is not `0.0`, and NaN is itself.
    fn shown(result: Result<Value, String>) -> Result<String, String> {
        result.map(|value| match value {
            Value::F64(v) if v.is_nan() => "NaN".to_string(),
            Value::F64(v) => format!("{v:?} as {:x}", v.to_bits()),
            value => format!("{value:?}"),
        })
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            Just(Value::Missing),
            Just(Value::Unchanged),
            any::<bool>().prop_map(Value::Bool),
            (-3..4i64).prop_map(Value::I64),
            any::<i64>().prop_map(Value::I64),
            any::<u64>().prop_map(Value::U64),
            (-6..7i32).prop_map(|v| Value::F64(f64::from(v) / 2.0)),
            any::<f64>().prop_map(Value::F64),
            Just(Value::F64(f64::NAN)),
            (-6..7i16).prop_map(|v| Value::F32(f32::from(v) / 2.0)),
            "[ab]{0,2}".prop_map(Value::Text),
            (-5..5i128).prop_map(|v| Value::Decimal(v, 1)),
            (-2..3i32).prop_map(Value::Date),
            Just(Value::Json("3".into())),
            Just(Value::Uuid([0; 16])),
        ]
    }

    fn batch(rows: &[[Value; 3]]) -> Batch {
        let fields = ["a", "b", "c"].map(|name| Field::new(name, Type::Any)).to_vec();
        let mut builder = BatchBuilder::new(
            Schema {
                collection: "t".into(),
                fields,
            }
            .into(),
        );
        for row in rows {
            builder
                .push(Op::Insert, &[row[0].as_cell(), row[1].as_cell(), row[2].as_cell()])
                .unwrap();
        }
        builder.finish(Origin::default())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn gives_the_engines_answer(source in expression(), rows in prop::collection::vec([value(), value(), value()], 1..6)) {
            let batch = batch(&rows);
            let quick = Expression::compile(&source, "where").unwrap();
            prop_assert!(quick.is_quick(), "{}", source);
            let slow = Expression::compile(&source, "where").unwrap().slow();
            for (row, values) in rows.iter().enumerate() {
                prop_assert_eq!(quick.bind(&batch).test(row), slow.bind(&batch).test(row), "{} on {:?}", source, values);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn computes_what_the_engine_computes(
            (left, right) in (arithmetic(), arithmetic()),
            operator in prop_oneof![Just("=="), Just("!="), Just("<"), Just(">="), Just(">")],
            rows in prop::collection::vec([value(), value(), value()], 1..6),
        ) {
            let batch = batch(&rows);
            for source in [left.clone(), format!("{left} {operator} {right}")] {
                // What has no column in it, or divides by a zero that stands there, is for the engine.
                let Ok(quick) = Expression::compile(&source, "columns.x") else { continue };
                let slow = Expression::compile(&source, "columns.x").unwrap().slow();
                for (row, values) in rows.iter().enumerate() {
                    prop_assert_eq!(shown(quick.bind(&batch).value(row)), shown(slow.bind(&batch).value(row)), "{} on {:?}", source, values);
                    prop_assert_eq!(quick.bind(&batch).test(row), slow.bind(&batch).test(row), "{} on {:?}", source, values);
                }
            }
        }
    }

    #[test]
    fn takes_the_expressions_it_is_for() {
        for (source, quick) in [
            ("a > 3", true),
            ("3.5 >= a && b != \"x\" || !(c == ())", true),
            ("a", true),
            ("a > 1 + 2", true),
            ("a > -5", true),
            ("a > b", true),
            ("a + 1 > 2", true),
            ("-a * 1.8 + 32 >= b / 2", true),
            ("a * 1.8 + 32", true),
            ("a % 2", false),
            ("a + 1 > \"x\"", false),
            ("a.len() > 2", false),
            ("row[\"a\"] > 2", false),
        ] {
            assert_eq!(
                Expression::compile(source, "where").unwrap().is_quick(),
                quick,
                "{source}"
            );
        }
    }
}
