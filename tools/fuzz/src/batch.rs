//! Batches of records.

use bus_schema::data::Batch;

/// What decodes can be read cell by cell, cut anywhere, and comes out the same once it is written again.
pub fn feed(data: &[u8]) {
    let Ok(batch) = Batch::decode(data) else { return };
    let written = batch.encode();
    // Not compared by value: a number that is none differs from itself.
    let read = Batch::decode(&written).expect("what was written reads back");
    assert_eq!(read.encode(), written);
    let (rows, columns) = (batch.rows(), batch.columns().len());
    for row in 0..rows.min(64) {
        let _ = batch.op(row);
        for column in 0..columns {
            let _ = batch.cell(row, column).to_value();
        }
    }
    let middle = rows / 2;
    assert_eq!(batch.slice(0..middle).rows() + batch.slice(middle..rows).rows(), rows);
    if rows > 0 {
        let taken = batch.take(&[rows - 1, 0]);
        assert_eq!(taken.rows(), 2);
        assert!(Batch::decode(&taken.encode()).is_ok());
    }
}
