//! The expression engine: Rhai in a sandbox, with exact numbers and times added. One for the whole process.
//!
//! Absent on purpose: loops, statements, assignments, function definitions, modules, clocks, random numbers and any way
//! out of the process. Every size and the number of steps is bounded.

use std::{
    cmp::Ordering,
    ops::{Range, RangeInclusive},
    sync::LazyLock,
};

use bus_schema::data::{Cell, Value, Zone};
use rhai::{
    Array, Dynamic, Engine, EvalAltResult, ImmutableString,
    packages::{Package, StandardPackage},
};

use crate::text::{self, shifted};

/// Steps one evaluation may take.
const OPERATIONS_MAX: u64 = 50_000;
/// How deep an expression may nest.
const DEPTH_MAX: usize = 48;
/// Longest text an expression may make, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most items in an array or object an expression may make.
const ITEMS_MAX: usize = 10_000;

/// Where the hashes of names and types begin. Without it they differ from build to build, and with them, by up to a fifth,
/// what an expression costs. Names come from the workflow alone, whose author need not be kept from choosing them.
const HASHING_SEED: [u64; 4] = [1, 2, 3, 4];

/// What an expression may call. A test calls each.
pub(crate) const FUNCTIONS: &[&str] = &[
    // numbers
    "abs",
    "sign",
    "min",
    "max",
    "floor",
    "ceiling",
    "round",
    "int",
    "fraction",
    "sqrt",
    "exp",
    "ln",
    "log",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "is_nan",
    "is_finite",
    "is_infinite",
    "is_even",
    "is_odd",
    "is_zero",
    "to_int",
    "to_float",
    "parse_int",
    "parse_float",
    "decimal",
    // text
    "len",
    "bytes",
    "contains",
    "starts_with",
    "ends_with",
    "index_of",
    "sub_string",
    "to_upper",
    "to_lower",
    "trim",
    "replace",
    "split",
    "chars",
    "to_string",
    "is_empty",
    // times
    "date",
    "time",
    "timestamp",
    "unix_ms",
    "unix_ns",
    // any value
    "type_of",
    "keys",
    "values",
];

/// The engine. Compiling and running share it.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(build);

fn build() -> Engine {
    // It is set once; whoever came first set the same.
    let _ = rhai::config::hashing::set_hashing_seed(Some(HASHING_SEED));
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    engine
        .set_max_operations(OPERATIONS_MAX)
        .set_max_expr_depths(DEPTH_MAX, DEPTH_MAX)
        .set_max_string_size(TEXT_BYTES_MAX)
        .set_max_array_size(ITEMS_MAX)
        .set_max_map_size(ITEMS_MAX)
        .set_max_call_levels(1)
        .set_max_functions(0)
        .set_max_variables(0)
        .set_allow_anonymous_fn(false)
        .set_allow_looping(false)
        // Rhai's own float comparisons allow for rounding, which makes unequal data equal: ours, below, are exact.
        .set_fast_operators(false);
    for symbol in [
        "eval",
        "print",
        "debug",
        "Fn",
        "call",
        "curry",
        "is_def_var",
        "is_def_fn",
        "this",
    ] {
        engine.disable_symbol(symbol);
    }
    number_operators(&mut engine);
    decimals(&mut engine);
    moments(&mut engine);
    texts(&mut engine);
    engine
}

type Outcome<T> = Result<T, Box<EvalAltResult>>;

macro_rules! comparisons {
    ($engine:expr, $left:ty, $right:ty, $compare:expr) => {{
        let compare: fn(&$left, &$right) -> Option<Ordering> = $compare;
        $engine.register_fn("==", move |a: $left, b: $right| {
            compare(&a, &b) == Some(Ordering::Equal)
        });
        $engine.register_fn("!=", move |a: $left, b: $right| {
            compare(&a, &b) != Some(Ordering::Equal)
        });
        $engine.register_fn("<", move |a: $left, b: $right| {
            compare(&a, &b).is_some_and(Ordering::is_lt)
        });
        $engine.register_fn("<=", move |a: $left, b: $right| {
            compare(&a, &b).is_some_and(Ordering::is_le)
        });
        $engine.register_fn(">", move |a: $left, b: $right| {
            compare(&a, &b).is_some_and(Ordering::is_gt)
        });
        $engine.register_fn(">=", move |a: $left, b: $right| {
            compare(&a, &b).is_some_and(Ordering::is_ge)
        });
    }};
}

fn number_operators(engine: &mut Engine) {
    comparisons!(engine, f64, f64, |a, b| a.partial_cmp(b));
    comparisons!(engine, i64, f64, |a, b| compare_int_float(*a, *b));
    comparisons!(engine, f64, i64, |a, b| compare_int_float(*b, *a)
        .map(Ordering::reverse));
}

/// Compares without rounding the integer to a float. `None` when the float is not a number.
pub(crate) fn compare_int_float(int: i64, float: f64) -> Option<Ordering> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        None
    } else if float >= BEYOND {
        Some(Ordering::Less)
    } else if float < -BEYOND {
        Some(Ordering::Greater)
    } else {
        // In range, so the cast only cuts the fraction off.
        let fraction = if float.fract() > 0.0 {
            Ordering::Less
        } else if float.fract() < 0.0 {
            Ordering::Greater
        } else {
            Ordering::Equal
        };
        Some(int.cmp(&(float as i64)).then(fraction))
    }
}

/// An exact decimal; also an integer too large for 64 bits with a sign.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    pub units: i128,
    pub scale: u8,
}

impl Decimal {
    fn to_float(self) -> f64 {
        self.show().parse().unwrap_or(f64::NAN)
    }

    fn show(self) -> String {
        Cell::Decimal(self.units, self.scale).to_string()
    }

    /// Both in units of the finer one.
    fn aligned(self, other: Self) -> Option<(i128, i128, u8)> {
        let scale = self.scale.max(other.scale);
        let to = |decimal: Self| shifted(decimal.units, i64::from(scale - decimal.scale));
        Some((to(self)?, to(other)?, scale))
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match self.aligned(other) {
            Some((a, b, _)) => Some(a.cmp(&b)),
            // One is too large to be written as finely as the other: they differ by far.
            None => self.to_float().partial_cmp(&other.to_float()),
        }
    }

    fn combine(self, other: Self, with: fn(i128, i128) -> Option<i128>) -> Outcome<Self> {
        let sum = self.aligned(other).and_then(|(a, b, scale)| {
            Some(Self {
                units: with(a, b)?,
                scale,
            })
        });
        sum.ok_or_else(|| "decimal overflow".into())
    }

    fn times(self, other: Self) -> Outcome<Self> {
        let scale = self
            .scale
            .checked_add(other.scale)
            .filter(|scale| *scale <= text::SCALE_MAX);
        let product = scale.and_then(|scale| {
            Some(Self {
                units: self.units.checked_mul(other.units)?,
                scale,
            })
        });
        product.ok_or_else(|| "decimal overflow".into())
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self {
            units: i128::from(value),
            scale: 0,
        }
    }
}

fn decimals(engine: &mut Engine) {
    engine.register_type_with_name::<Decimal>("decimal");
    comparisons!(engine, Decimal, Decimal, |a, b| a.compare(*b));
    comparisons!(engine, Decimal, i64, |a, b| a.compare((*b).into()));
    comparisons!(engine, i64, Decimal, |a, b| Decimal::from(*a).compare(*b));
    comparisons!(engine, Decimal, f64, |a, b| a.to_float().partial_cmp(b));
    comparisons!(engine, f64, Decimal, |a, b| a.partial_cmp(&b.to_float()));
    for (name, with) in [
        ("+", i128::checked_add as fn(i128, i128) -> Option<i128>),
        ("-", i128::checked_sub),
    ] {
        engine.register_fn(name, move |a: Decimal, b: Decimal| a.combine(b, with));
        engine.register_fn(name, move |a: Decimal, b: i64| a.combine(b.into(), with));
        engine.register_fn(name, move |a: i64, b: Decimal| Decimal::from(a).combine(b, with));
    }
    engine.register_fn("*", |a: Decimal, b: Decimal| a.times(b));
    engine.register_fn("*", |a: Decimal, b: i64| a.times(b.into()));
    engine.register_fn("*", |a: i64, b: Decimal| Decimal::from(a).times(b));
    engine.register_fn("-", |a: Decimal| -> Outcome<Decimal> {
        a.units
            .checked_neg()
            .map(|units| Decimal { units, ..a })
            .ok_or_else(|| "decimal overflow".into())
    });
    engine.register_fn("to_float", Decimal::to_float);
    engine.register_fn("to_string", Decimal::show);
    engine.register_fn("to_int", |a: Decimal| -> Outcome<i64> {
        let whole = shifted(a.units, -i64::from(a.scale)).and_then(|whole| i64::try_from(whole).ok());
        whole.ok_or_else(|| format!("{} is not a 64-bit integer", a.show()).into())
    });
    engine.register_fn("decimal", |text: ImmutableString| -> Outcome<Decimal> {
        let digits = text.trim();
        let scale = digits.split_once('.').map_or(0, |(_, part)| part.len());
        let scale = u8::try_from(scale).ok().filter(|scale| *scale <= text::SCALE_MAX);
        let units = scale.and_then(|scale| {
            Some(Decimal {
                units: text::decimal(digits, 0, scale)?,
                scale,
            })
        });
        units.ok_or_else(|| format!("'{}' is not a decimal", text::shorten(&text)).into())
    });
    engine.register_fn("decimal", |value: i64| Decimal::from(value));
}

/// A date, a time or a timestamp: a value expressions can compare and show, and pass on unchanged.
#[derive(Debug, Clone)]
pub(crate) struct Moment(pub Value);

impl Moment {
    /// Moments of one kind have an order. Timestamps that know their zone are one kind.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (&self.0, &other.0) {
            (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
            (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (
                Value::TimestampUtc(a) | Value::TimestampOffset(a, _),
                Value::TimestampUtc(b) | Value::TimestampOffset(b, _),
            ) => Some(a.cmp(b)),
            _ => None,
        }
    }

    fn nanos(&self) -> Outcome<i128> {
        match self.0 {
            Value::Timestamp(nanos) | Value::TimestampUtc(nanos) | Value::TimestampOffset(nanos, _) => Ok(nanos),
            Value::Date(days) => Ok(i128::from(days) * 86_400_000_000_000),
            _ => Err("only a date or timestamp has a Unix time".into()),
        }
    }
}

fn moments(engine: &mut Engine) {
    engine.register_type_with_name::<Moment>("moment");
    comparisons!(engine, Moment, Moment, |a, b| a.compare(b));
    engine.register_fn("to_string", |moment: Moment| moment.0.as_cell().to_string());
    engine.register_fn("unix_ns", |moment: Moment| -> Outcome<i64> {
        moment
            .nanos()?
            .try_into()
            .map_err(|_| "the moment is too far away for nanoseconds in 64 bits".into())
    });
    engine.register_fn("unix_ms", |moment: Moment| -> Outcome<i64> {
        let millis = moment.nanos()?.div_euclid(1_000_000);
        millis
            .try_into()
            .map_err(|_| "the moment is too far away for milliseconds in 64 bits".into())
    });
    let not_one = |what: &str, text: &str| format!("'{}' is not a {what}", text::shorten(text));
    engine.register_fn("date", move |text: ImmutableString| -> Outcome<Moment> {
        text::date(text.trim())
            .map(|v| Moment(Value::Date(v)))
            .ok_or_else(|| not_one("date", &text).into())
    });
    engine.register_fn("time", move |text: ImmutableString| -> Outcome<Moment> {
        text::time(text.trim())
            .map(|v| Moment(Value::Time(v)))
            .ok_or_else(|| not_one("time", &text).into())
    });
    engine.register_fn("timestamp", move |text: ImmutableString| -> Outcome<Moment> {
        let trimmed = text.trim();
        // Without a zone it is a naive one, with a zone a moment.
        let value = text::timestamp(trimmed, Zone::Naive).or_else(|| text::timestamp(trimmed, Zone::Utc));
        value.map(Moment).ok_or_else(|| not_one("timestamp", &text).into())
    });
}

/// Rhai's own change their text in place and give nothing back, which in an expression would be a silent null; and they look
/// at the size of what they make when it is there already. Ours count first: one record must not take the daemon's memory.
fn texts(engine: &mut Engine) {
    type Text = ImmutableString;
    engine.register_fn("trim", |text: Text| ImmutableString::from(text.trim()));
    engine.register_fn("is_empty", |text: Text| text.is_empty());
    engine.register_fn("replace", |text: Text, from: Text, to: Text| {
        replaced(&text, &from, &to)
    });
    engine.register_fn("replace", |text: Text, from: char, to: Text| {
        replaced(&text, from.encode_utf8(&mut [0; 4]), &to)
    });
    engine.register_fn("replace", |text: Text, from: Text, to: char| {
        replaced(&text, &from, to.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn("replace", |text: Text, from: char, to: char| {
        replaced(&text, from.encode_utf8(&mut [0; 4]), to.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn("split", |text: Text| items("split", text.split_whitespace()));
    engine.register_fn("split", |text: Text, at: Text| items("split", text.split(at.as_str())));
    engine.register_fn("split", |text: Text, at: char| items("split", text.split(at)));
    engine.register_fn("split", |text: Text, at: Text, parts: i64| {
        items("split", text.splitn(parts_of(parts), at.as_str()))
    });
    engine.register_fn("split", |text: Text, at: char, parts: i64| {
        items("split", text.splitn(parts_of(parts), at))
    });
    // Rhai's own is for its loops, of which there are none here, and holds four bytes for each of the text's.
    engine.register_fn("chars", |text: Text| items("chars", text.chars()));
    engine.register_fn("chars", |_: Text, _: i64| only_the_text());
    engine.register_fn("chars", |_: Text, _: i64, _: i64| only_the_text());
    engine.register_fn("chars", |_: Text, _: Range<i64>| only_the_text());
    engine.register_fn("chars", |_: Text, _: RangeInclusive<i64>| only_the_text());
}

fn replaced(text: &str, from: &str, to: &str) -> Outcome<ImmutableString> {
    let matches = text.matches(from).count();
    let kept = text.len().saturating_sub(matches.saturating_mul(from.len()));
    let bytes = kept.saturating_add(matches.saturating_mul(to.len()));
    if bytes > TEXT_BYTES_MAX {
        let message = format!("`replace` would make a text of {bytes} bytes, and the longest is {TEXT_BYTES_MAX}");
        return Err(message.into());
    }
    Ok(text.replace(from, to).into())
}

/// What a text is taken apart into.
fn items<T: Into<Dynamic>>(name: &str, parts: impl Iterator<Item = T> + Clone) -> Outcome<Array> {
    if parts.clone().nth(ITEMS_MAX).is_some() {
        return Err(format!("`{name}` would make more than {ITEMS_MAX} items, which is the most").into());
    }
    Ok(parts.map(Into::into).collect())
}

/// As Rhai has it: one part at least.
fn parts_of(parts: i64) -> usize {
    usize::try_from(parts).unwrap_or_default().max(1)
}

fn only_the_text() -> Outcome<Array> {
    Err("`chars` takes a text and nothing else: cut it with `sub_string` first".into())
}

/// Turns JSON into something expressions can look into. Integers and decimals keep every digit.
pub(crate) fn from_json(json: serde_json::Value) -> Dynamic {
    match json {
        serde_json::Value::Null => Dynamic::UNIT,
        serde_json::Value::Bool(v) => v.into(),
        serde_json::Value::String(v) => v.into(),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(v), _) => v.into(),
            (None, Some(v)) => Dynamic::from(Decimal {
                units: v.into(),
                scale: 0,
            }),
            (None, None) => n.as_f64().unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::Array(items) => items.into_iter().map(from_json).collect::<Vec<_>>().into(),
        serde_json::Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name.into(), from_json(value)));
            fields.collect::<rhai::Map>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(expression: &str) -> String {
        match ENGINE.eval_expression::<Dynamic>(expression) {
            Ok(value) if value.is::<Decimal>() => value.cast::<Decimal>().show(),
            Ok(value) if value.is::<Moment>() => value.cast::<Moment>().0.as_cell().to_string(),
            Ok(value) => value.to_string(),
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn numbers_compare_exactly() {
        for (expression, wanted) in [
            ("0.1 + 0.2 == 0.3", "false"),
            ("1.0 == 1.0000000000000002", "false"),
            ("1.0 < 1.0000000000000002", "true"),
            ("9007199254740993 == 9007199254740992.0", "false"),
            ("9007199254740993 > 9007199254740992.0", "true"),
            ("9223372036854775807 < 9223372036854775808.0", "true"),
            ("-5 > -5.5", "true"),
            ("1 == 1.0", "true"),
            ("(0.0/0.0) == (0.0/0.0)", "false"),
            ("(1.0/0.0) == (1.0/0.0)", "true"),
            ("(0.0/0.0) != 1", "true"),
            ("() == ()", "true"),
            ("() < 1", "false"),
            ("() != 1", "true"),
            ("\"a\" < 1", "false"),
            ("9223372036854775807 + 1", "! "),
            ("decimal(\"1.50\") + 1", "2.50"),
            ("decimal(\"1.50\") * decimal(\"0.2\")", "0.300"),
            ("-decimal(\"1.5\") < 0", "true"),
            ("decimal(\"1.50\") == 1.5", "true"),
            ("decimal(\"18446744073709551615\") > 9223372036854775807", "true"),
            ("decimal(\"x\")", "! "),
            (
                "timestamp(\"2024-01-01T00:00:00Z\") < timestamp(\"2024-01-01T00:00:00-01:00\")",
                "true",
            ),
            (
                "timestamp(\"2024-01-01\") == timestamp(\"2024-01-01T00:00:00Z\")",
                "false",
            ),
            ("timestamp(\"1970-01-01T00:00:01Z\").unix_ms()", "1000"),
            ("date(\"2024-02-30\")", "! "),
            ("\" x \".trim()", "x"),
            ("\"abc\".replace(\"b\", \"-\")", "a-c"),
            ("\"abcb\".replace('b', \"--\")", "a--c--"),
            ("\"abc\".replace(\"ab\", 'x')", "xc"),
            ("\"abc\".replace('b', 'x')", "axc"),
            ("\"ab\".replace(\"\", \"-\")", "-a-b-"),
            ("\"a b  c\".split()", "[\"a\", \"b\", \"c\"]"),
            ("\"a,b,,c\".split(\",\")", "[\"a\", \"b\", \"\", \"c\"]"),
            ("\"a,b,c\".split(',', 2)", "[\"a\", \"b,c\"]"),
            ("\"a,b,c\".split(\",\", 0)", "[\"a,b,c\"]"),
            ("\"ab\".split(1)", "[\"a\", \"b\"]"),
            ("\"aé\".chars()", "['a', 'é']"),
            ("\"abc\".chars(1, 2)", "! "),
            ("\"abc\".chars(1..2)", "! "),
            ("if 1 > 2 { \"a\" } else { \"b\" }", "b"),
            ("switch 3 { 1 => \"a\", 2..4 => \"b\", _ => \"c\" }", "b"),
            ("() ?? 7", "7"),
            ("3 in [1, 2, 3]", "true"),
            ("`x${1 + 1}`", "x2"),
        ] {
            let found = shown(expression);
            assert!(
                found == wanted || wanted == "! " && found.starts_with(wanted),
                "{expression}: {found}"
            );
        }
    }

    #[test]
    fn every_function_is_there() {
        let arguments = [
            "1",
            "1.5",
            "\"1\"",
            "\"2024-01-01\"",
            "\"01:00\"",
            "\"x\", \"x\"",
            "\"x\", 0",
            "1, 2",
            "\"x\", \"x\", \"y\"",
            "[1]",
            "#{a: 1}",
            "timestamp(\"2024-01-01\")",
        ];
        for name in FUNCTIONS {
            let works = arguments
                .iter()
                .any(|arguments| !shown(&format!("{name}({arguments})")).starts_with('!'));
            assert!(works, "{name}");
        }
    }

    /// Whatever can make more of what it is given. A text of a megabyte: were these made first and measured then, most
    /// would take a thousand gigabytes or the memory of a small machine many times over.
    #[test]
    fn what_multiplies_is_measured_before_it_is_made() {
        let mut scope = rhai::Scope::new();
        scope.push("t", "a".repeat(1024 * 1024));
        scope.push("s", "a ".repeat(512 * 1024));
        let many = |part: &str, between: &str| vec![part; 400].join(between);
        for expression in [
            r#"t.replace("a", t)"#.to_string(),
            r#"t.replace('a', t)"#.to_string(),
            r#"t.replace("", t)"#.to_string(),
            r#"t.replace("a", "bbbbb")"#.to_string(),
            r#"t.replace("", '\u20ac').replace("", '\u20ac')"#.to_string(),
            r#"t.replace('a', '\u20ac').replace('\u20ac', "bbbbb")"#.to_string(),
            r#"t.split("")"#.to_string(),
            r#"t.split("a")"#.to_string(),
            "t.split('a')".to_string(),
            r#"t.split("a", 9223372036854775807)"#.to_string(),
            "t.split('a', 10001)".to_string(),
            "s.split()".to_string(),
            "t.chars()".to_string(),
            "t.chars(0)".to_string(),
            "t.chars(0, 1000000)".to_string(),
            "t.chars(0..1000000)".to_string(),
            "t.chars(0..=1000000)".to_string(),
            ["t"; 20].join(" + "),
            format!("[{}]", many("t", ", ")),
            format!("[{}]", many("t.to_upper()", ", ")),
            format!("[{}].to_string()", many("t", ", ")),
            format!(
                "#{{{}}}",
                (0..400).map(|n| format!("k{n}: t")).collect::<Vec<_>>().join(", ")
            ),
            format!("`{}`", many("${t}", "")),
            format!("`{}`", many("${[t, t]}", "")),
        ] {
            let told = ENGINE
                .compile_expression(&expression)
                .map_err(|error| error.to_string())
                .and_then(|ast| {
                    let made = ENGINE.eval_ast_with_scope::<Dynamic>(&mut scope, &ast);
                    made.map_err(|error| error.to_string())
                });
            let start: String = expression.chars().take(60).collect();
            let error = told.map(|value| value.type_name()).expect_err(&start);
            let wanted = ["would make", "too large", "nothing else"];
            assert!(wanted.iter().any(|wanted| error.contains(wanted)), "{start}: {error}");
        }
    }
}
