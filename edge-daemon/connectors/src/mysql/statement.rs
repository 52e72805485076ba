//! What a statement of the binary log does to a table, as far as the rows that follow in the log do not say it. Pure: reads
//! the words at its beginning, and understands no expression.

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing that matters here.
    None,
    /// A transaction begins.
    Begin,
    /// The transaction ends, and counts.
    Commit,
    /// The transaction ends, and what it wrote to tables with transactions does not count.
    Rollback,
    /// An XA transaction of this name is whole, and about to be prepared.
    XaEnd(String),
    /// The prepared XA transaction of this name counts.
    XaCommit(String),
    /// The prepared XA transaction of this name does not count.
    XaRollback(String),
    /// All rows are gone, or those of some partitions.
    Emptied,
    /// There is no table of this name any more.
    Dropped,
    /// It has another name now.
    Renamed(String),
    /// Rows may have changed, and the log does not say which: it was logged as a statement.
    Unlogged,
}

/// Characters looked at: what a statement does is said at its beginning.
const CHARS_MAX: usize = 64 * 1024;

/// Characters of the name of an XA transaction: two parts of up to 64 bytes in hexadecimal, and a number.
const XA_CHARS_MAX: usize = 300;

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A bare word.
    Bare(String),
    /// A name in quotes.
    Quoted(String),
    /// A text.
    Text,
    /// Anything else, one character.
    Sign(char),
}

impl Word {
    fn is(&self, word: &str) -> bool {
        matches!(self, Word::Bare(bare) if bare.eq_ignore_ascii_case(word))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Word::Bare(name) | Word::Quoted(name) => Some(name),
            Word::Text | Word::Sign(_) => None,
        }
    }
}

/// A table that is followed.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub database: String,
    pub name: String,
    /// Names are the same in small and capital letters.
    pub is_caseless: bool,
}

impl Table {
    /// Whether this is its name.
    pub(super) fn is(&self, database: &str, name: &str) -> bool {
        let same = |a: &str, b: &str| a == b || self.is_caseless && a.to_lowercase() == b.to_lowercase();
        same(&self.database, database) && same(&self.name, name)
    }
}

/// What `sql`, run in `database`, does to `table`.
pub(super) fn effect(sql: &str, database: &str, table: &Table) -> Effect {
    let words = words(sql);
    let Some(first) = words.first() else {
        return Effect::None;
    };
    let mut rest = Words {
        words: &words[1..],
        database,
    };
    let second = |word: &str| words.get(1).is_some_and(|it| it.is(word));
    let Word::Bare(first) = first else {
        return Effect::None;
    };
    match first.to_ascii_uppercase().as_str() {
        "BEGIN" => Effect::Begin,
        "START" if second("TRANSACTION") => Effect::Begin,
        "COMMIT" => Effect::Commit,
        "XA" if second("START") || second("BEGIN") => Effect::Begin,
        "XA" if second("END") => Effect::XaEnd(xa_name(sql)),
        "XA" if second("COMMIT") => Effect::XaCommit(xa_name(sql)),
        "XA" if second("ROLLBACK") => Effect::XaRollback(xa_name(sql)),
        "ROLLBACK" if !words.iter().any(|word| word.is("TO")) => Effect::Rollback,
        "TRUNCATE" => {
            rest.skip("TABLE");
            match rest.table() {
                Some((database, name)) if table.is(&database, &name) => Effect::Emptied,
                _ => Effect::None,
            }
        }
        "DROP" if second("TABLE") || second("TEMPORARY") || second("TABLES") => dropped(rest, table),
        "DROP" if second("DATABASE") || second("SCHEMA") => {
            rest.words = &rest.words[1..];
            rest.skip("IF");
            rest.skip("EXISTS");
            match rest.words.first().and_then(Word::name) {
                Some(name) if table.is(name, &table.name) => Effect::Dropped,
                _ => Effect::None,
            }
        }
        "RENAME" if second("TABLE") || second("TABLES") => renamed(rest, table),
        "ALTER" => altered(rest, table),
        "CREATE" if words[1..].iter().take(3).any(|word| word.is("REPLACE")) => replaced(rest, table),
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" => mentioned(&words, database, table),
        _ => Effect::None,
    }
}

/// What an XA transaction is called. The server writes these statements itself, and the name always in the same way.
fn xa_name(sql: &str) -> String {
    let parts = sql.split_whitespace().skip(2).flat_map(str::chars);
    parts.take(XA_CHARS_MAX).collect()
}

/// Words that follow.
struct Words<'a> {
    words: &'a [Word],
    database: &'a str,
}

impl Words<'_> {
    /// Goes past a word, if it is there.
    fn skip(&mut self, word: &str) -> bool {
        let is_there = self.words.first().is_some_and(|it| it.is(word));
        if is_there {
            self.words = &self.words[1..];
        }
        is_there
    }

    /// `database.table`, or `table` of the database.
    fn table(&mut self) -> Option<(String, String)> {
        let first = self.words.first()?.name()?.to_string();
        self.words = &self.words[1..];
        if self.words.first() != Some(&Word::Sign('.')) {
            return Some((self.database.to_string(), first));
        }
        let second = self.words.get(1)?.name()?.to_string();
        self.words = &self.words[2..];
        Some((first, second))
    }

    fn comma(&mut self) -> bool {
        let is_there = self.words.first() == Some(&Word::Sign(','));
        if is_there {
            self.words = &self.words[1..];
        }
        is_there
    }
}

fn dropped(mut rest: Words<'_>, table: &Table) -> Effect {
    if rest.skip("TEMPORARY") {
        return Effect::None;
    }
    for word in ["TABLE", "TABLES", "IF", "EXISTS"] {
        rest.skip(word);
    }
    while let Some((database, name)) = rest.table() {
        if table.is(&database, &name) {
            return Effect::Dropped;
        }
        if !rest.comma() {
            break;
        }
    }
    Effect::None
}

/// `a TO b, c TO d`: what has our name in the end is ours.
fn renamed(mut rest: Words<'_>, table: &Table) -> Effect {
    for word in ["TABLE", "TABLES", "IF", "EXISTS"] {
        rest.skip(word);
    }
    let mut effect = Effect::None;
    while let Some((database, name)) = rest.table() {
        // MariaDB: WAIT n, NOWAIT.
        while rest.words.first().is_some_and(|word| !word.is("TO")) {
            rest.words = &rest.words[1..];
        }
        rest.skip("TO");
        let Some(new) = rest.table() else { break };
        if table.is(&database, &name) {
            effect = Effect::Renamed(format!("{}.{}", new.0, new.1));
        } else if table.is(&new.0, &new.1) {
            effect = Effect::None;
        }
        if !rest.comma() {
            break;
        }
    }
    effect
}

fn altered(mut rest: Words<'_>, table: &Table) -> Effect {
    for word in ["ONLINE", "OFFLINE", "IGNORE"] {
        rest.skip(word);
    }
    if !rest.skip("TABLE") {
        return Effect::None;
    }
    rest.skip("IF");
    rest.skip("EXISTS");
    let Some((database, _)) = rest.table().filter(|(database, name)| table.is(database, name)) else {
        return Effect::None;
    };
    let words = rest.words;
    for at in 0..words.len() {
        let next = |ahead: usize, word: &str| words.get(at + ahead).is_some_and(|it| it.is(word));
        let is_first = at == 0 || words[at - 1] == Word::Sign(',');
        if (next(0, "TRUNCATE") || next(0, "DROP") || next(0, "EXCHANGE")) && next(1, "PARTITION") && is_first {
            return Effect::Emptied;
        }
        let others = ["COLUMN", "INDEX", "KEY", "CONSTRAINT", "PARTITION"];
        if next(0, "RENAME") && is_first && !others.iter().any(|word| next(1, word)) {
            let mut new = Words {
                words: &words[at + 1..],
                database: &database,
            };
            for word in ["TO", "AS"] {
                new.skip(word);
            }
            new.words = match new.words.first() {
                Some(Word::Sign('=')) => &new.words[1..],
                _ => new.words,
            };
            return match new.table() {
                Some((database, new)) if !table.is(&database, &new) => Effect::Renamed(format!("{database}.{new}")),
                _ => Effect::None,
            };
        }
    }
    Effect::None
}

/// CREATE OR REPLACE TABLE drops what has the name.
fn replaced(mut rest: Words<'_>, table: &Table) -> Effect {
    rest.skip("OR");
    rest.skip("REPLACE");
    if !rest.skip("TABLE") {
        return Effect::None;
    }
    match rest.table() {
        Some((database, name)) if table.is(&database, &name) => Effect::Emptied,
        _ => Effect::None,
    }
}

/// A statement that changes rows is in the log only where it was not logged by rows.
fn mentioned(words: &[Word], database: &str, table: &Table) -> Effect {
    let is_ours = |at: usize| {
        let Some(name) = words[at].name() else { return false };
        let qualifier = (at >= 2 && words[at - 1] == Word::Sign('.'))
            .then(|| words[at - 2].name())
            .flatten();
        table.is(qualifier.unwrap_or(database), name)
    };
    match (0..words.len()).any(is_ours) {
        true => Effect::Unlogged,
        false => Effect::None,
    }
}

/// The words of a statement, without comments; those of a comment that the server reads are among them.
fn words(sql: &str) -> Vec<Word> {
    let chars: Vec<char> = sql.chars().take(CHARS_MAX).collect();
    let (mut words, mut at) = (Vec::new(), 0);
    let until = |from: usize, end: &[char]| (from..chars.len()).find(|at| chars[*at..].starts_with(end));
    while let Some(&char) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        match char {
            '-' if next == Some('-') => at = until(at, &['\n']).unwrap_or(chars.len()),
            '#' => at = until(at, &['\n']).unwrap_or(chars.len()),
            '/' if next == Some('*') => {
                let inside = at + 2;
                let is_read = chars.get(inside) == Some(&'!') || chars[inside..].starts_with(&['M', '!']);
                at = match is_read {
                    true => {
                        let start = until(inside, &['!']).map_or(chars.len(), |at| at + 1);
                        (start..chars.len())
                            .find(|at| !chars[*at].is_ascii_digit())
                            .unwrap_or(chars.len())
                    }
                    false => until(inside, &['*', '/']).map_or(chars.len(), |at| at + 2),
                };
            }
            '*' if next == Some('/') => at += 2,
            '`' | '\'' | '"' => {
                let (text, end) = quoted(&chars, at, char);
                words.push(if char == '`' { Word::Quoted(text) } else { Word::Text });
                at = end;
            }
            char if char.is_whitespace() => at += 1,
            char if char.is_alphanumeric() || matches!(char, '_' | '$' | '@') => {
                let is_word = |char: &char| char.is_alphanumeric() || matches!(char, '_' | '$' | '@');
                let word: String = chars[at..].iter().take_while(|char| is_word(char)).collect();
                at += word.chars().count();
                words.push(Word::Bare(word));
            }
            sign => {
                words.push(Word::Sign(sign));
                at += 1;
            }
        }
    }
    words
}

/// What stands in quotes, and where it ends. A quote in it is doubled; in a text a backslash may stand before it.
fn quoted(chars: &[char], start: usize, quote: char) -> (String, usize) {
    let (mut text, mut at) = (String::new(), start + 1);
    while let Some(&char) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        if char == quote && next != Some(quote) {
            return (text, at + 1);
        }
        let is_pair = char == quote || char == '\\' && quote != '`';
        text.extend(if is_pair { next } else { Some(char) });
        at += if is_pair { 2 } else { 1 };
    }
    (text, chars.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(sql: &str) -> Effect {
        let table = Table {
            database: "d".into(),
            name: "t".into(),
            is_caseless: false,
        };
        effect(sql, "d", &table)
    }

    #[test]
    fn statements_do_what_they_say() {
        let renamed = |name: &str| Effect::Renamed(name.to_string());
        for (sql, wanted) in [
            ("BEGIN", Effect::Begin),
            ("commit", Effect::Commit),
            ("ROLLBACK", Effect::Rollback),
            ("ROLLBACK TO `s`", Effect::None),
            ("SAVEPOINT t", Effect::None),
            ("XA START X'61',X'',1", Effect::Begin),
            ("XA END X'61',X'',1", Effect::XaEnd("X'61',X'',1".into())),
            ("XA COMMIT X'61',X'',1", Effect::XaCommit("X'61',X'',1".into())),
            ("XA ROLLBACK X'61', X'',1", Effect::XaRollback("X'61',X'',1".into())),
            ("XA RECOVER", Effect::None),
            ("TRUNCATE t", Effect::Emptied),
            ("truncate table `d`.`t`", Effect::Emptied),
            ("/* x */ TRUNCATE TABLE /*!40000 d.t */", Effect::Emptied),
            ("TRUNCATE TABLE e.t", Effect::None),
            ("TRUNCATE TABLE T", Effect::None),
            (
                "DROP TABLE IF EXISTS `a` , d.t /* generated by server */",
                Effect::Dropped,
            ),
            ("DROP TEMPORARY TABLE t", Effect::None),
            ("DROP TABLE `a``t`", Effect::None),
            ("DROP DATABASE IF EXISTS d", Effect::Dropped),
            ("DROP DATABASE t", Effect::None),
            ("RENAME TABLE t TO u", renamed("d.u")),
            ("RENAME TABLE t TO _t_old, _t_new TO t", Effect::None),
            ("ALTER TABLE t RENAME TO e.u", renamed("e.u")),
            ("ALTER TABLE t RENAME u", renamed("d.u")),
            ("ALTER TABLE t RENAME COLUMN a TO b", Effect::None),
            ("ALTER TABLE t ADD c int, RENAME u", renamed("d.u")),
            ("ALTER TABLE t ADD `rename` int", Effect::None),
            ("ALTER TABLE t DROP PARTITION p1", Effect::Emptied),
            ("ALTER TABLE t TRUNCATE PARTITION p1", Effect::Emptied),
            ("ALTER TABLE t COMMENT = 'x, DROP PARTITION y'", Effect::None),
            ("ALTER TABLE u DROP PARTITION p1", Effect::None),
            ("CREATE OR REPLACE TABLE t (id int)", Effect::Emptied),
            ("CREATE TABLE t (id int)", Effect::None),
            ("INSERT INTO t VALUES (1)", Effect::Unlogged),
            ("UPDATE u SET a = 't'", Effect::None),
            ("DELETE FROM e.t", Effect::None),
            ("# Dum", Effect::None),
            ("", Effect::None),
        ] {
            assert_eq!(of(sql), wanted, "{sql}");
        }
        let caseless = Table {
            database: "d".into(),
            name: "t".into(),
            is_caseless: true,
        };
        assert_eq!(effect("TRUNCATE D.T", "", &caseless), Effect::Emptied);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            head in "(ALTER TABLE t|RENAME TABLE|DROP TABLE|TRUNCATE|CREATE OR REPLACE TABLE|/\\*!|)",
            tail in "[tud`'\"\\\\/*#!., =-]{0,30}|.{0,20}",
        ) {
            of(&format!("{head} {tail}"));
        }
    }
}
