//! How the rows of a table in the binary log are read: from what the log says of the table, and what only the catalog knows
//! (which bytes are a UUID, which text is JSON, what a collation's number stands for).

use std::sync::Arc;

use bus_schema::{
    data::{Field, Schema},
    limits::COLUMNS_MAX,
};
use flow::Fault;

use super::{
    charset::Charset,
    connect::is_mariadb,
    form::{Form, text_literal},
    layout::documents,
    link::Link,
    table_map::{Column, TableMap, ty},
    value::{Kind, Writing},
};
use crate::postgres::{DECIMAL_DIGITS_MAX, Written as _};

/// What rows look like.
#[derive(Debug)]
pub(super) struct Described {
    pub map: TableMap,
    pub schema: Arc<Schema>,
    pub forms: Arc<[Form]>,
    pub writings: Vec<Writing>,
    /// Columns that the log may leave out: they are computed whenever they are read.
    pub virtuals: Vec<bool>,
    /// Why rows cannot be read, if so.
    pub unreadable: Option<String>,
}

/// What the catalog knows now, by the names of columns.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Name, type, and whether it is virtual.
    columns: Vec<(String, String, bool)>,
    /// MariaDB's documents, which are texts.
    documents: Vec<String>,
    /// Collations and their character sets.
    charsets: Vec<(u16, String)>,
}

impl Catalog {
    /// Looks a table up; one that is gone has nothing.
    pub(super) async fn load(link: &mut Link, map: &TableMap) -> Result<Self, Fault> {
        let version: Vec<String> = link.rows("look at the server", "SELECT VERSION()").await?;
        let here = format!(
            "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
            text_literal(&map.table)
        );
        let sql = format!(
            "SELECT COLUMN_NAME, LOWER(DATA_TYPE), EXTRA LIKE '%VIRTUAL%' FROM information_schema.COLUMNS WHERE {here}"
        );
        let columns = link.rows("read the table's columns", &sql).await?;
        let collations = map.columns.iter().filter_map(|column| column.collation);
        let mut collations: Vec<String> = collations.map(|number| number.to_string()).collect();
        collations.sort_unstable();
        collations.dedup();
        let mut charsets = Vec::new();
        if !collations.is_empty() {
            // MariaDB's newer collations have a number only in the second of the two.
            let mut sources = vec!["COLLATIONS"];
            let sql = "SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'information_schema' \
                       AND TABLE_NAME = 'COLLATION_CHARACTER_SET_APPLICABILITY' AND COLUMN_NAME = 'ID'";
            let found: Vec<u64> = link.rows("look at the catalog", sql).await?;
            if is_mariadb(version.first().map_or("", String::as_str)) && found.first().is_some_and(|count| *count > 0) {
                sources.push("COLLATION_CHARACTER_SET_APPLICABILITY");
            }
            for source in sources {
                let list = collations.join(", ");
                let sql =
                    format!("SELECT ID, CHARACTER_SET_NAME FROM information_schema.{source} WHERE ID IN ({list})");
                let found: Vec<(u16, String)> = link.rows("look collations up", &sql).await?;
                charsets.extend(found);
            }
        }
        Ok(Self {
            columns,
            documents: documents(link, &map.table).await?,
            charsets,
        })
    }

    fn charset(&self, collation: Option<u16>) -> Charset {
        let Some(number) = collation else {
            return Charset::Binary;
        };
        match self.charsets.iter().find(|(it, _)| *it == number) {
            Some((_, name)) => Charset::named(name),
            None => Charset::Other(format!("of collation {number}")),
        }
    }
}

impl Described {
    pub(super) fn new(map: TableMap, catalog: &Catalog, collection: &str) -> Self {
        let mut unreadable = (!map.has_names()).then(|| {
            "the log did not say what columns are called (binlog_row_metadata was not FULL when it was written)"
                .to_string()
        });
        if map.columns.len() > COLUMNS_MAX {
            let count = map.columns.len();
            unreadable = Some(format!(
                "it has {count} columns, and a record holds at most {COLUMNS_MAX}"
            ));
        }
        let (mut writings, mut forms) = (Vec::new(), Vec::new());
        for column in &map.columns {
            let writing = writing(column, catalog);
            let form = form(&writing, catalog);
            if let Err(cause) = &form {
                unreadable.get_or_insert_with(|| format!("column '{}' {cause}", column.name));
            }
            forms.push(form.unwrap_or(Form::Bytes));
            writings.push(writing);
        }
        let fields = map.columns.iter().zip(&forms).enumerate();
        let fields = fields.map(|(index, (column, form))| Field {
            name: column.name.clone(),
            ty: form.ty(),
            nullable: column.nullable,
            key: map.key.contains(&index),
        });
        let is_virtual = |column: &Column| catalog.columns.iter().any(|(name, _, it)| *it && *name == column.name);
        Self {
            schema: Arc::new(Schema {
                collection: collection.to_string(),
                fields: fields.collect(),
            }),
            virtuals: map.columns.iter().map(is_virtual).collect(),
            forms: forms.into(),
            writings,
            unreadable,
            map,
        }
    }
}

fn writing(column: &Column, catalog: &Catalog) -> Writing {
    let declared = catalog.columns.iter().find(|(name, ..)| *name == column.name);
    let declared = declared.map_or("", |(_, ty, _)| ty.as_str());
    let charset = catalog.charset(column.collation);
    let kind = match (column.ty, declared, column.fixed_bytes()) {
        (ty::STRING, "uuid", 16) => Kind::Uuid,
        (ty::STRING, "inet6", 16) => Kind::Inet6,
        (ty::STRING, "inet4", 4) => Kind::Inet4,
        (ty::STRING, _, length) if charset == Charset::Binary => Kind::Padded(length),
        _ => Kind::Plain,
    };
    Writing {
        column: column.clone(),
        charset,
        kind,
    }
}

/// How the text of a value is read; or why values cannot be.
fn form(writing: &Writing, catalog: &Catalog) -> Result<Form, String> {
    let column = &writing.column;
    let [precision, scale] = column.meta;
    if let (Charset::Other(name), Kind::Plain) = (&writing.charset, &writing.kind) {
        return Err(format!(
            "is in the character set {name}, in which the log is not read here: ALTER TABLE … MODIFY it with CHARACTER SET \
             utf8mb4, or use mode = \"cursor\""
        ));
    }
    Ok(match column.ty {
        ty::TINY | ty::SHORT | ty::INT24 | ty::LONG | ty::YEAR => Form::Integer,
        ty::LONGLONG if column.unsigned => Form::Unsigned,
        ty::LONGLONG => Form::Integer,
        ty::BIT => Form::Bit,
        ty::FLOAT => Form::Float4,
        ty::DOUBLE => Form::Float8,
        ty::NEWDECIMAL => {
            let fits = precision <= DECIMAL_DIGITS_MAX as u8;
            Form::Decimal(fits.then_some((precision, scale)))
        }
        ty::DATE | ty::NEWDATE => Form::Date,
        ty::TIME2 => Form::Time,
        ty::DATETIME2 => Form::DateTime,
        ty::TIMESTAMP2 => Form::Timestamp,
        ty::ENUM | ty::SET => Form::Named,
        ty::JSON => Form::Json,
        ty::GEOMETRY | ty::VECTOR => Form::Bytes,
        ty::STRING | ty::VARCHAR | ty::VAR_STRING | ty::TINY_BLOB..=ty::BLOB => match (&writing.kind, &writing.charset)
        {
            (Kind::Uuid, _) => Form::Uuid,
            (Kind::Inet4 | Kind::Inet6, _) => Form::Text,
            (_, Charset::Binary) => Form::Bytes,
            _ if catalog.documents.contains(&column.name) => Form::Json,
            _ => Form::Text,
        },
        ty::PACKED_BLOB | ty::PACKED_VARCHAR => {
            return Err("is COMPRESSED, which the log is not read for here: use mode = \"cursor\"".to_string());
        }
        other => {
            return Err(format!(
                "is of a type (number {other}) that the log is not read for: times of before MariaDB 10.1 and MySQL 5.6 become \
                 newer ones with ALTER TABLE … FORCE; or use mode = \"cursor\""
            ));
        }
    })
}
