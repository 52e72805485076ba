//! One expression over the columns of a row: compiled once, run per row. Knows what each value is inside an expression
//! and what comes out of one.
//!
//! | a column holds | in the expression it is |
//! |---|---|
//! | bool, integer, float, text | the same; a `u64` above 2^63-1 is a decimal |
//! | decimal | an exact decimal: `+ - *`, comparisons, `to_float()`, `to_int()` |
//! | date, time, timestamp | a moment: comparisons with its own kind, `unix_ms()`, `to_string()`; written `date("2024-01-31")`, `timestamp("2024-01-31T10:00:00Z")` |
//! | json | what it says: objects (`payload.temp`), arrays, texts, numbers |
//! | bytes | a blob |
//! | uuid | its text |
//! | null | `()`: equal only to `()`; every other comparison with it is false, arithmetic with it rejects the row; `x ?? 0` replaces it |
//!
//! A column that is mentioned by name must be there: a row without it (or an update that left it unchanged) is rejected
//! with the nearest name, so that a mistyped name never drops records silently. `row["name"]` is `()` instead, and also
//! reaches names that are not identifiers.

use std::collections::BTreeSet;

use bus_schema::data::{Batch, Cell, Type, Value};
use flow::ConfigError;
use rhai::{AST, ASTNode, Dynamic, EvalAltResult, Expr, Map, Scope, Stmt};

use crate::{
    arithmetic::{Arithmetic, Number},
    engine::{Decimal, ENGINE, FUNCTIONS, Moment, from_json},
    quick::Test,
    text::{push_json, shifted, shorten},
};

/// Longest expression, in bytes.
const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// The name under which an expression reaches every column.
const ROW: &str = "row";

/// A compiled expression.
pub(crate) struct Expression {
    source: String,
    ast: AST,
    /// Columns mentioned by name.
    columns: Vec<String>,
    row: Row,
    quick: Option<Test>,
    arithmetic: Option<Arithmetic>,
}

/// What an expression wants of `row`.
enum Row {
    Nothing,
    Columns(Vec<String>),
    Everything,
}

/// An expression bound to the columns of one batch.
pub(crate) struct Bound<'a> {
    expression: &'a Expression,
    batch: &'a Batch,
    /// Where each mentioned column stands, in the order of [`Expression::columns`].
    places: Vec<Option<usize>>,
}

impl Expression {
    /// Compiles `source`, which stands at `key` of a config.
    pub(crate) fn compile(source: &str, key: &str) -> Result<Self, ConfigError> {
        let wrong = |message: String| ConfigError::at(key, message);
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(wrong(format!("an expression has at most {EXPRESSION_BYTES_MAX} bytes")));
        }
        let ast = ENGINE.compile_expression(source).map_err(|error| {
            let place = place(error.position());
            wrong(format!(
                "{}{place} in `{}`{}",
                error.err_type(),
                shorten(source),
                mistake(source)
            ))
        })?;
        let mentioned =
            Mentioned::of(&ast).map_err(|(what, at)| wrong(format!("{what}{} in `{}`", place(at), shorten(source))))?;
        let columns: Vec<String> = mentioned.variables.into_iter().filter(|name| name != ROW).collect();
        let (quick, arithmetic) = (Test::of(&ast, &columns), Arithmetic::of(&ast, &columns));
        Ok(Self {
            source: source.to_string(),
            ast,
            columns,
            row: mentioned.row,
            quick,
            arithmetic,
        })
    }

    /// Looks the columns up in a batch.
    pub(crate) fn bind<'a>(&'a self, batch: &'a Batch) -> Bound<'a> {
        let places = self.columns.iter().map(|name| batch.schema().index_of(name)).collect();
        Bound {
            expression: self,
            batch,
            places,
        }
    }

    /// Without the fast path, to compare the two.
    #[cfg(test)]
    pub(crate) fn slow(mut self) -> Self {
        (self.quick, self.arithmetic) = (None, None);
        self
    }

    #[cfg(test)]
    pub(crate) fn is_quick(&self) -> bool {
        self.quick.is_some() || self.arithmetic.is_some()
    }
}

impl Bound<'_> {
    /// Whether the row fulfils the expression; an error is the reason to reject the row.
    pub(crate) fn test(&self, row: usize) -> Result<bool, String> {
        if let Some(answer) = self.quick(row) {
            return Ok(answer);
        }
        let value = self.run(row)?;
        value
            .as_bool()
            .map_err(|found| self.failed(&format!("gives {found}, not true or false")))
    }

    /// The expression's value; an error is the reason to reject the row.
    pub(crate) fn value(&self, row: usize) -> Result<Value, String> {
        if let Some(number) = self.number(row) {
            return Ok(number.value());
        }
        if let Some(answer) = self.quick(row) {
            return Ok(Value::Bool(answer));
        }
        from_dynamic(self.run(row)?).map_err(|cause| self.failed(&cause))
    }

    /// `None` when the answer needs the engine.
    fn quick(&self, row: usize) -> Option<bool> {
        let test = self.expression.quick.as_ref()?;
        self.has_all(row)
            .then(|| test.answer(&|column| self.cell(row, column)))?
    }

    /// `None` when the number needs the engine, or there is none.
    fn number(&self, row: usize) -> Option<Number> {
        let arithmetic = self.expression.arithmetic.as_ref()?;
        self.has_all(row)
            .then(|| arithmetic.answer(&|column| self.cell(row, column)))?
    }

    /// A mentioned column has to be there even where the answer would not depend on it.
    fn has_all(&self, row: usize) -> bool {
        let mentioned = 0..self.places.len();
        mentioned
            .into_iter()
            .all(|column| !matches!(self.cell(row, column), Cell::Missing | Cell::Unchanged))
    }

    /// The value of a mentioned column.
    fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let place = self.places.get(column).copied().flatten();
        place.map_or(Cell::Missing, |place| self.batch.cell(row, place))
    }

    fn run(&self, row: usize) -> Result<Dynamic, String> {
        let mut scope = Scope::new();
        for (column, name) in self.expression.columns.iter().enumerate() {
            let value = match self.cell(row, column) {
                Cell::Missing => return Err(self.no_such_column(name)),
                Cell::Unchanged => {
                    return Err(self.failed(&format!("the update left '{name}' unchanged: its value is not known")));
                }
                cell => to_dynamic(cell).map_err(|cause| self.failed(&format!("'{name}' {cause}")))?,
            };
            // Constants, so that a call that would change one in place is an error and not a silent nothing.
            scope.push_constant_dynamic(name.as_str(), value);
        }
        if let Some(map) = self.row(row)? {
            scope.push_constant_dynamic(ROW, map.into());
        }
        ENGINE
            .eval_ast_with_scope(&mut scope, &self.expression.ast)
            .map_err(|error| self.failed(&explain(&error)))
    }

    fn row(&self, row: usize) -> Result<Option<Map>, String> {
        let fields = &self.batch.schema().fields;
        let wanted: Vec<&str> = match &self.expression.row {
            Row::Nothing => return Ok(None),
            Row::Columns(names) => names.iter().map(String::as_str).collect(),
            Row::Everything => fields.iter().map(|field| field.name.as_str()).collect(),
        };
        let mut map = Map::new();
        for name in wanted {
            let cell = self
                .batch
                .schema()
                .index_of(name)
                .map_or(Cell::Missing, |place| self.batch.cell(row, place));
            let value = to_dynamic(cell).map_err(|cause| self.failed(&format!("'{name}' {cause}")))?;
            map.insert(name.into(), value);
        }
        Ok(Some(map))
    }

    fn no_such_column(&self, name: &str) -> String {
        let schema = self.batch.schema();
        let near = nearest(name, schema.fields.iter().map(|field| field.name.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        self.failed(&format!(
            "the record has no field '{name}'{hint}; where it may be absent, write row[\"{name}\"]"
        ))
    }

    fn failed(&self, cause: &str) -> String {
        format!("`{}`: {cause}", shorten(&self.expression.source))
    }
}

fn to_dynamic(cell: Cell<'_>) -> Result<Dynamic, String> {
    Ok(match cell {
        Cell::Null | Cell::Missing | Cell::Unchanged => Dynamic::UNIT,
        Cell::Bool(v) => v.into(),
        Cell::I64(v) => v.into(),
        Cell::U64(v) => match i64::try_from(v) {
            Ok(v) => v.into(),
            Err(_) => Dynamic::from(Decimal {
                units: v.into(),
                scale: 0,
            }),
        },
        Cell::F32(v) => f64::from(v).into(),
        Cell::F64(v) => v.into(),
        Cell::Decimal(units, scale) => Dynamic::from(Decimal { units, scale }),
        Cell::Text(v) => v.into(),
        Cell::Bytes(v) => Dynamic::from_blob(v.to_vec()),
        Cell::Uuid(_) => cell.to_string().into(),
        Cell::Json(v) => from_json(serde_json::from_str(v).map_err(|error| format!("is not JSON: {error}"))?),
        Cell::List(items) => items
            .iter()
            .map(|item| to_dynamic(item.as_cell()))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        Cell::Date(_) | Cell::Time(_) | Cell::Timestamp(_) | Cell::TimestampUtc(_) | Cell::TimestampOffset(..) => {
            Dynamic::from(Moment(cell.to_value()))
        }
    })
}

fn from_dynamic(value: Dynamic) -> Result<Value, String> {
    if value.is_array() || value.is_map() {
        return from_nested(value);
    }
    scalar(value).map_err(|found| format!("gives {found}, which a record cannot hold"))
}

/// A value without inner values, or the name of its type.
fn scalar(value: Dynamic) -> Result<Value, String> {
    Ok(match value {
        value if value.is_unit() => Value::Null,
        value if value.is_bool() => Value::Bool(value.as_bool().map_err(str::to_string)?),
        value if value.is_int() => Value::I64(value.as_int().map_err(str::to_string)?),
        value if value.is_float() => Value::F64(value.as_float().map_err(str::to_string)?),
        value if value.is_string() => Value::Text(value.into_string().map_err(str::to_string)?),
        value if value.is_char() => Value::Text(value.as_char().map_err(str::to_string)?.to_string()),
        value if value.is_blob() => Value::Bytes(value.into_blob().map_err(str::to_string)?),
        value if value.is::<Decimal>() => {
            let decimal = value.cast::<Decimal>();
            Value::Decimal(decimal.units, decimal.scale)
        }
        value if value.is::<Moment>() => value.cast::<Moment>().0,
        value => return Err(value.type_name().to_string()),
    })
}

/// An array of plain values is a list, anything deeper JSON (with the keys of objects in alphabetical order).
fn from_nested(value: Dynamic) -> Result<Value, String> {
    if let Some(items) = value.read_lock::<rhai::Array>()
        && let Ok(plain) = items.iter().cloned().map(scalar).collect::<Result<Vec<_>, _>>()
    {
        return Ok(Value::List(plain));
    }
    let mut out = Vec::new();
    write_json(&value, &mut out)?;
    String::from_utf8(out)
        .map(Value::Json)
        .map_err(|error| error.to_string())
}

fn write_json(value: &Dynamic, out: &mut Vec<u8>) -> Result<(), String> {
    if let Some(items) = value.read_lock::<rhai::Array>() {
        out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json(item, out)?;
        }
        out.push(b']');
        return Ok(());
    }
    if let Some(fields) = value.read_lock::<Map>() {
        out.push(b'{');
        for (index, (name, item)) in fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            push_json(out, Cell::Text(name))?;
            out.push(b':');
            write_json(item, out)?;
        }
        out.push(b'}');
        return Ok(());
    }
    let plain = scalar(value.clone()).map_err(|found| format!("gives {found}, which a record cannot hold"))?;
    push_json(out, plain.as_cell())
}

/// The type of a column of these values: theirs if they share one (decimals: the finest scale), else any.
pub(crate) fn common_type(values: &[Value]) -> Type {
    let mut common: Option<Type> = None;
    for ty in values.iter().filter_map(|value| value.as_cell().type_of()) {
        common = Some(match (common, ty) {
            (None, ty) => ty,
            (Some(Type::Decimal { scale: a, .. }), Type::Decimal { scale: b, .. }) => Type::Decimal {
                precision: 0,
                scale: a.max(b),
            },
            (Some(common), ty) if common == ty => common,
            _ => return Type::Any,
        });
    }
    if let Some(Type::Decimal { scale, .. }) = common
        && !values.iter().all(|value| rescaled(value, scale).is_some())
    {
        return Type::Any;
    }
    common.unwrap_or(Type::Any)
}

/// The same decimal at another scale; anything else as it is.
pub(crate) fn rescaled(value: &Value, scale: u8) -> Option<Value> {
    match value {
        Value::Decimal(units, from) => {
            shifted(*units, i64::from(scale) - i64::from(*from)).map(|units| Value::Decimal(units, scale))
        }
        value => Some(value.clone()),
    }
}

/// What an expression mentions.
struct Mentioned {
    variables: BTreeSet<String>,
    row: Row,
}

impl Mentioned {
    /// Fails on a call of something that is not there.
    fn of(ast: &AST) -> Result<Self, (String, rhai::Position)> {
        let mut variables = BTreeSet::new();
        let mut literal = Vec::new();
        let mut rows = 0;
        let mut unknown = None;
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            match path.last() {
                Some(ASTNode::Expr(Expr::Variable(named, ..))) => {
                    variables.insert(named.1.to_string());
                    rows += usize::from(named.1 == ROW);
                }
                Some(ASTNode::Expr(Expr::Index(pair, ..) | Expr::Dot(pair, ..))) => {
                    literal.extend(literal_of_row(&pair.lhs, &pair.rhs));
                }
                Some(
                    ASTNode::Expr(Expr::FnCall(call, at) | Expr::MethodCall(call, at))
                    | ASTNode::Stmt(Stmt::FnCall(call, at)),
                ) if !call.is_operator_call() && !FUNCTIONS.contains(&call.name.as_str()) => {
                    unknown = Some((call.name.to_string(), *at));
                }
                _ => {}
            }
            unknown.is_none()
        });
        if let Some((name, at)) = unknown {
            let near = nearest(&name, FUNCTIONS.iter().copied());
            let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
            return Err((format!("there is no function '{name}'{hint}"), at));
        }
        let row = match rows {
            0 => Row::Nothing,
            // Every mention of the row picks a named column.
            rows if rows == literal.len() => Row::Columns(literal),
            _ => Row::Everything,
        };
        Ok(Self { variables, row })
    }
}

/// The column in `row["name"]` or `row.name`. In a chain (`row.a.b`) the right side is a pair whose left is the first link.
fn literal_of_row(left: &Expr, right: &Expr) -> Option<String> {
    if !matches!(left, Expr::Variable(named, ..) if named.1 == ROW) {
        return None;
    }
    match right {
        Expr::StringConstant(name, _) => Some(name.to_string()),
        Expr::Property(name, _) => Some(name.2.to_string()),
        Expr::Index(pair, ..) | Expr::Dot(pair, ..) => match &pair.lhs {
            Expr::StringConstant(name, _) => Some(name.to_string()),
            Expr::Property(name, _) => Some(name.2.to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn place(at: rhai::Position) -> String {
    match (at.line(), at.position()) {
        (Some(1), Some(column)) => format!(" at character {column}"),
        (Some(line), Some(column)) => format!(" at line {line}, character {column}"),
        _ => String::new(),
    }
}

/// What people coming from SQL or Python write, and what to write here.
fn mistake(source: &str) -> String {
    let words: Vec<String> = source
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .map(str::to_lowercase)
        .collect();
    let said = |word: &str| words.iter().any(|found| found == word);
    let hint = if said("and") || said("or") || said("not") {
        "write && for and, || for or, ! for not"
    } else if source.contains('\'') {
        "texts stand in double quotes"
    } else if said("is") || said("null") || said("nil") || said("none") {
        "to test for null, write x == ()"
    } else if source
        .replace("==", "")
        .replace("<=", "")
        .replace(">=", "")
        .replace("!=", "")
        .replace("=>", "")
        .contains('=')
    {
        "to compare, write =="
    } else if source.contains("<>") {
        "for \"not equal\", write !="
    } else {
        "a column whose name is not a plain word is written row[\"name\"]"
    };
    format!("; {hint}")
}

fn explain(error: &EvalAltResult) -> String {
    let hint = match error {
        EvalAltResult::ErrorFunctionNotFound(signature, _) if signature.contains("()") => {
            " (a null takes part: replace it with `??`)"
        }
        EvalAltResult::ErrorFunctionNotFound(..) => " (these types do not go together)",
        _ => "",
    };
    format!("{error}{hint}")
}

/// The known name that is most like `name`, if one differs in no more than a third of its letters.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, near) = known.map(|known| (edits(name, known), known)).min()?;
    (distance <= name.chars().count().div_ceil(3)).then_some(near)
}

/// Levenshtein distance, ignoring case.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
