//! Transforms, one file each, one line each in [`components`]. Functions over batches: no clock, and no I/O but the key of
//! `hash` and the zone of `timestamp`, both when they are made.

mod aggregate;
mod arithmetic;
mod batch;
mod bound;
mod cast;
mod cells;
mod clamp;
mod codec;
mod columns;
mod constant;
mod contract;
pub mod convert;
mod deadband;
mod dedupe;
mod derive;
mod engine;
mod expression;
mod fill;
mod filter;
mod flatten;
mod hash;
mod line;
mod line_protocol;
mod logfmt;
mod mask;
mod merge;
mod moment;
mod object;
mod ordered;
mod origin;
mod pace;
mod parse;
mod partition;
mod pattern;
mod quick;
mod render;
mod route;
mod sample;
// One file for both crates, which do not depend on each other.
#[path = "../../connectors/src/secret.rs"]
mod secret;
mod spread;
#[cfg(test)]
mod testing;
pub mod text;
mod timestamp;
mod trim;
mod unnest;
mod validate;

use flow::Component;

/// Every transform of this build.
pub fn components() -> Vec<Component> {
    vec![
        filter::FILTER,
        derive::DERIVE,
        columns::SELECT,
        columns::RENAME,
        cast::CAST,
        validate::VALIDATE,
        clamp::CLAMP,
        fill::FILL,
        trim::TRIM,
        mask::MASK,
        hash::HASH,
        sample::SAMPLE,
        deadband::DEADBAND,
        flatten::FLATTEN,
        unnest::UNNEST,
        parse::PARSE,
        render::RENDER,
        timestamp::TIMESTAMP,
        codec::DECODE,
        codec::ENCODE,
        dedupe::DEDUPE,
        aggregate::AGGREGATE,
        batch::BATCH,
        route::ROUTE,
        partition::PARTITION,
        contract::CONTRACT,
        merge::MERGE,
        origin::ORIGIN,
    ]
}

#[cfg(test)]
mod tests {
    use bus_schema::plan::ComponentRole;

    #[test]
    fn descriptors_are_whole() {
        let mut names = Vec::new();
        for component in super::components() {
            let descriptor = (component.descriptor)();
            assert_eq!(descriptor.role, ComponentRole::Transform);
            assert!(
                descriptor.schema.contains("\"additionalProperties\":false"),
                "{}: {}",
                descriptor.name,
                descriptor.schema
            );
            assert!(descriptor.example.contains(&descriptor.name), "{}", descriptor.example);
            names.push(descriptor.name);
        }
        assert_eq!(
            names,
            [
                "filter",
                "derive",
                "select",
                "rename",
                "cast",
                "validate",
                "clamp",
                "fill",
                "trim",
                "mask",
                "hash",
                "sample",
                "deadband",
                "flatten",
                "unnest",
                "parse",
                "render",
                "timestamp",
                "decode",
                "encode",
                "dedupe",
                "aggregate",
                "batch",
                "route",
                "partition",
                "contract",
                "merge",
                "origin"
            ]
        );
    }
}
