//! What several tests need: elements built by hand, SCEP-shaped messages built by the `cms` and
//! `x509-cert` crates, and the law that every table obeys.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub(crate) mod element;
pub(crate) mod scep;

use chancery_protocol::node::{Form, MAX_DEPTH, MAX_RECORDS, Record};

/// Checks what a prover relies on: records in pre-order tile their parents, the first fills the
/// buffer, and every header and every end of contents is where the record says.
pub(crate) fn assert_tiles(buffer: &[u8], table: &[Record]) {
    assert!((1..=MAX_RECORDS).contains(&table.len()));
    let mut depths: Vec<usize> = Vec::new();
    // Where the next child of each record must start.
    let mut cursors: Vec<usize> = Vec::new();
    let full = |r: &Record| {
        let closing = if r.form == Form::Indefinite { 2 } else { 0 };
        usize::from(r.header) + r.content as usize + closing
    };
    for (index, record) in table.iter().enumerate() {
        let (start, parent) = (record.start as usize, usize::from(record.parent));
        if index == 0 {
            assert_eq!((start, parent, full(record)), (0, 0, buffer.len()));
            depths.push(1);
        } else {
            assert!(parent < index);
            assert_eq!(
                start, cursors[parent],
                "record {index} leaves a gap or overlaps"
            );
            cursors[parent] += full(record);
            depths.push(depths[parent] + 1);
        }
        assert!(depths[index] <= MAX_DEPTH);
        let content = start + usize::from(record.header);
        assert_header(&buffer[start..content], record);
        let bits = record.form == Form::Opened && buffer[start] == 0x03;
        if bits {
            assert_eq!(buffer[content], 0);
        }
        cursors.push(content + usize::from(bits));
        let end = content + record.content as usize;
        if record.form == Form::Indefinite {
            assert_eq!(buffer[end..end + 2], [0, 0]);
        }
    }
    for (index, record) in table.iter().enumerate() {
        let end = record.start as usize + usize::from(record.header) + record.content as usize;
        if record.form != Form::Primitive {
            assert_eq!(cursors[index], end, "record {index} is not filled");
        }
        let children = table
            .iter()
            .skip(1)
            .filter(|r| usize::from(r.parent) == index)
            .count();
        match record.form {
            Form::Primitive => assert_eq!(children, 0),
            Form::Opened => assert_eq!(children, 1),
            Form::Definite | Form::Indefinite => {}
        }
    }
}

/// A header is its tag and the one minimal length, or `80`; the constructed bit is the form's.
fn assert_header(header: &[u8], record: &Record) {
    let constructed = matches!(record.form, Form::Definite | Form::Indefinite);
    assert_eq!(header[0] & 0x20 != 0, constructed);
    assert!(header[0] & 0x1f != 0x1f && header[0] & !0x20 != 0);
    let length = match record.form {
        Form::Indefinite => vec![0x80],
        _ => element::length(record.content as usize),
    };
    assert_eq!(header[1..], length);
}
