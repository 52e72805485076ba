//! One suite that every connector passes, each against its real system and under the real runner: what is wrong with it is
//! said before it runs; its server restarts; it is killed in the middle of a batch; the other end is slow; a record is bad;
//! the columns change; it is told to stop; it runs for a while and takes no more memory.
//!
//! Which of these apply to which connector, and why not the others, is said in the table below. It becomes
//! `docs/COMPLIANCE.md`, and a test fails while the page says something else, or while a connector of the registry has no
//! line: `UPDATE=1 cargo test -p connectors --test compliance page` writes it.
//!
//! The run for leaks takes three seconds here; `cargo xtask compliance --leak 10` lets it take ten minutes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod broker_worlds;
mod counter;
mod database_worlds;
mod file_worlds;
mod gathering;
mod http_worlds;
mod live_worlds;
mod numbers;
mod page;
mod program_worlds;
mod protected;
mod rights;
mod sink_suite;
mod source_suite;
mod world;

use world::{Ask, Row, World};

const NO_SERVER: (Ask, &str) = (Ask::Reconnect, "there is no server: it reads or writes files");
const OWN_PROGRAM: (Ask, &str) = (Ask::Drift, "the program decides what a record is");
const NO_COLUMNS: (Ask, &str) = (Ask::Drift, "its columns are always the same");
const NEVER_BAD: (Ask, &str) = (Ask::BadRecord, "nothing it reads can be bad");
const IS_SERVER: (Ask, &str) = (Ask::Reconnect, "it is the server");
const ON_DISK: (Ask, &str) = (
    Ask::Pressure,
    "a disk takes what it is given: there is nobody to be slow",
);
const NOTHING_THERE: (Ask, &str) = (Ask::Untouched, "there is nothing that a check could touch");
const IS_PROCESS: (Ask, &str) = (Ask::Untouched, STANDARD);
const NOTHING_WRONG: (Ask, &str) = (
    Ask::Wrong,
    "what can be wrong with it, its config tells before it is built",
);
const STANDARD: &str = "it belongs to the process: `edge-daemon/tests/standalone.rs` runs it in one";

/// A line of the table and its test.
macro_rules! rows {
    ($($test:ident: $role:ident $component:literal $way:literal = $world:expr, not: [$($not:expr),*];)*) => {
        /// All lines of the table.
        fn rows() -> Vec<Row> {
            vec![$(Row {
                component: $component,
                way: $way,
                world: World::$role(|| Box::new($world)),
                not: &[$($not),*],
            }),*]
        }

        $(#[test]
        fn $test() {
            let rows = rows();
            rows.iter().find(|row| row.is($component, $way, stringify!($role))).unwrap().prove();
        })*
    };
}

rows! {
    source_exec: Source "exec" "" = program_worlds::ExecSource::new(), not: [OWN_PROGRAM];
    source_file: Source "file" "" = file_worlds::FileSource::new(), not: [NO_SERVER];
    source_files: Source "files" "as records" = file_worlds::FilesSource::new(), not: [NO_SERVER];
    source_files_whole: Source "files" "whole" = file_worlds::WholeFiles::new(), not: [
        NO_SERVER, (Ask::BadRecord, "whatever is in a file, it is sent as it is"), NO_COLUMNS];
    source_generator: Source "generator" "" = live_worlds::Generator::new(), not: [
        (Ask::Reconnect, "there is no server: it makes its records up"), NEVER_BAD, NO_COLUMNS, NOTHING_WRONG,
        NOTHING_THERE];
    source_host_metrics: Source "host_metrics" "" = live_worlds::HostMetrics::new(), not: [
        (Ask::Reconnect, "there is no server: it asks the kernel"), NEVER_BAD, NO_COLUMNS,
        NOTHING_THERE];
    source_http: Source "http" "" = http_worlds::HttpSource::new(), not: [];
    source_modbus: Source "modbus" "TCP" = live_worlds::Modbus::tcp(), not: [
        (Ask::BadRecord, "what a point does not say is null in its record, with the reason in `status`"), NO_COLUMNS];
    source_modbus_rtu: Source "modbus" "RTU" = live_worlds::Modbus::rtu(), not: [
        (Ask::BadRecord, "what a point does not say is null in its record, with the reason in `status`"), NO_COLUMNS];
    source_mqtt: Source "mqtt" "" = broker_worlds::MqttSource::new(), not: [];
    source_mysql: Source "mysql" "by cursor" = database_worlds::MysqlSource::cursor(), not: [
        (Ask::BadRecord, "the server hands out no text that is not valid")];
    source_mysql_changes: Source "mysql" "changes" = database_worlds::MysqlSource::changes(), not: [
        (Ask::BadRecord, "the server hands out no text that is not valid")];
    source_nats: Source "nats" "JetStream" = broker_worlds::NatsSource::jetstream(), not: [];
    source_nats_core: Source "nats" "subject" = broker_worlds::NatsSource::core(), not: [
        (Ask::Untouched, "the server keeps nothing that a check could touch")];
    source_opcua: Source "opcua" "read" = live_worlds::OpcUa::read(), not: [
        (Ask::BadRecord, "what a node does not say is null in its record, with the reason in `status`"), NO_COLUMNS];
    source_opcua_subscribe: Source "opcua" "subscribe" = live_worlds::OpcUa::subscribe(), not: [
        (Ask::BadRecord, "what a node does not say is null in its record, with the reason in `status`"), NO_COLUMNS];
    source_opcua_encrypted: Source "opcua" "subscribe, encrypted" = live_worlds::OpcUa::encrypted(), not: [
        (Ask::BadRecord, "what a node does not say is null in its record, with the reason in `status`"), NO_COLUMNS];
    source_postgres: Source "postgres" "by cursor" = database_worlds::PostgresSource::cursor(), not: [
        (Ask::BadRecord, "the server hands out no text that is not valid")];
    source_postgres_changes: Source "postgres" "replication" = database_worlds::PostgresSource::replication(), not: [
        (Ask::BadRecord, "the server hands out no text that is not valid")];
    source_python: Source "python" "" = program_worlds::PythonSource::new(), not: [OWN_PROGRAM];
    source_sqlite: Source "sqlite" "by cursor" = database_worlds::SqliteSource::cursor(), not: [NO_SERVER];
    source_sqlite_changes: Source "sqlite" "changes" = database_worlds::SqliteSource::changes(), not: [NO_SERVER];
    source_stdin: Source "stdin" "" = live_worlds::Standard::new("stdin"), not: [
        (Ask::Reconnect, STANDARD), (Ask::Kill, "what was read and not delivered cannot be read again"),
        (Ask::Pressure, STANDARD), (Ask::BadRecord, STANDARD), (Ask::Drift, STANDARD), (Ask::Stop, STANDARD),
        (Ask::Leak, STANDARD), IS_PROCESS, NOTHING_WRONG];
    source_syslog: Source "syslog" "UDP" = live_worlds::Syslog::udp(), not: [IS_SERVER, NO_COLUMNS];
    source_syslog_tcp: Source "syslog" "TCP" = live_worlds::Syslog::tcp(), not: [IS_SERVER, NO_COLUMNS];
    source_webhook: Source "webhook" "" = http_worlds::Webhook::new(), not: [IS_SERVER];
    sink_exec: Sink "exec" "" = program_worlds::ExecSink::new(), not: [];
    sink_file: Sink "file" "" = file_worlds::FileSink::new(), not: [NO_SERVER, ON_DISK];
    sink_files: Sink "files" "" = file_worlds::FilesSink::new(), not: [
        NO_SERVER, (Ask::Drift, "a file is as it is"), (Ask::BadRecord, "its source makes no others"),
        ON_DISK];
    sink_http: Sink "http" "" = http_worlds::HttpSink::new(), not: [];
    sink_influxdb: Sink "influxdb" "" = http_worlds::InfluxdbSink::new(), not: [];
    sink_mqtt: Sink "mqtt" "" = broker_worlds::MqttSink::new(), not: [];
    sink_mysql: Sink "mysql" "" = database_worlds::MysqlSink::new(), not: [];
    sink_nats: Sink "nats" "JetStream" = broker_worlds::NatsSink::jetstream(), not: [];
    sink_nats_core: Sink "nats" "subject" = broker_worlds::NatsSink::core(), not: [];
    sink_postgres: Sink "postgres" "" = database_worlds::PostgresSink::new(), not: [];
    sink_python: Sink "python" "" = program_worlds::PythonSink::new(), not: [];
    sink_s3: Sink "s3" "" = http_worlds::S3Sink::new(), not: [];
    sink_sqlite: Sink "sqlite" "" = database_worlds::SqliteSink::new(), not: [NO_SERVER];
    sink_stdout: Sink "stdout" "" = live_worlds::Standard::new("stdout"), not: [
        (Ask::Reconnect, STANDARD), (Ask::Kill, "it cannot be known who has read it: at least once"),
        (Ask::Pressure, STANDARD), (Ask::BadRecord, STANDARD), (Ask::Drift, STANDARD), (Ask::Stop, STANDARD),
        (Ask::Leak, STANDARD), IS_PROCESS, NOTHING_WRONG];
}

/// A connector of the registry that has no line fails; so does a line that says nothing about itself twice.
#[test]
fn every_connector_has_a_line() {
    use bus_schema::plan::ComponentRole;
    let rows = rows();
    for component in connectors::components() {
        let descriptor = (component.descriptor)();
        let role = match descriptor.role {
            ComponentRole::Source => "Source",
            ComponentRole::Destination => "Sink",
            ComponentRole::Transform => continue,
        };
        assert!(
            rows.iter()
                .any(|row| row.component == descriptor.name && row.role() == role),
            "the {role} '{}' has no line in the table of tests/compliance/main.rs",
            descriptor.name
        );
    }
    for row in &rows {
        for (index, (ask, why)) in row.not.iter().enumerate() {
            assert!(
                why.len() > 10 && row.not[..index].iter().all(|(other, _)| other != ask),
                "{}: {ask:?}",
                row.component
            );
        }
    }
}

#[test]
fn page_is_as_the_table() {
    page::check(&rows());
}
