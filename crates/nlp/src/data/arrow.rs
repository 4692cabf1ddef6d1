//! Rows of Parquet files and of Arrow files, by the readers of the Apache project; what `datasets` keeps beside them in their schema.
use std::{fs::File, io::BufReader, path::Path};

use arrow_array::{
    Array, ArrayRef, RecordBatch, RecordBatchReader,
    cast::AsArray as _,
    types::{
        Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::record::{Features, Record};
use crate::Error;

/// Rows decoded at a time.
const BATCH: usize = 1024;

/// Calls `sink` with each row of a Parquet file; rows are counted from 1.
pub(super) fn parquet(path: &Path, sink: &mut dyn FnMut(&Features, Record) -> Result<(), Error>) -> Result<(), Error> {
    let broken = |e: parquet::errors::ParquetError| Error::format(path, format!("no Parquet file: {e}"));
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    // The reader's own schema lacks the metadata.
    let features = features(builder.schema());
    let reader = builder.with_batch_size(BATCH).build().map_err(broken)?;
    batches(reader, &features, path, sink)
}

/// Calls `sink` with each row of an Arrow file, of the stream format that `datasets` writes or of the file format (Feather).
pub(super) fn arrow(path: &Path, sink: &mut dyn FnMut(&Features, Record) -> Result<(), Error>) -> Result<(), Error> {
    let broken = |e: ArrowError| Error::format(path, format!("no Arrow file: {e}"));
    let open = || File::open(path).map(BufReader::new).map_err(|e| Error::io(path, e));
    if super::record::beginning(path)?.starts_with(b"ARROW1") {
        let reader = FileReader::try_new(open()?, None).map_err(broken)?;
        let features = features(&reader.schema());
        return batches(reader, &features, path, sink);
    }
    let reader = StreamReader::try_new(open()?, None).map_err(broken)?;
    let features = features(&reader.schema());
    batches(reader, &features, path, sink)
}

fn batches(
    reader: impl RecordBatchReader,
    features: &Features,
    path: &Path,
    sink: &mut dyn FnMut(&Features, Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut line = 0;
    for batch in reader {
        let batch = batch.map_err(|e| Error::format(path, format!("after row {line}: {e}")))?;
        for row in 0..batch.num_rows() {
            line += 1;
            let value = cells(&batch, row).map_err(|problem| Error::data(path, line, problem))?;
            sink(features, Record { line, value })?;
        }
    }
    Ok(())
}

/// The names of classes, which `datasets` keeps as JSON in the schema's metadata.
fn features(schema: &Schema) -> Features {
    let info = schema.metadata().get("huggingface").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut features = info.map(|info| Features::of(&info["info"]["features"])).unwrap_or_default();
    let strange = schema.fields().iter().filter(|field| !readable(field.data_type()));
    features.unreadable = strange.map(|field| (field.name().clone(), field.data_type().to_string())).collect();
    features
}

fn readable(kind: &DataType) -> bool {
    match kind {
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => readable(of.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| readable(field.data_type())),
        DataType::Dictionary(_, of) => readable(of),
        DataType::Null
        | DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Float32
        | DataType::Float64 => true,
        other => other.is_integer(),
    }
}

fn cells(batch: &RecordBatch, row: usize) -> Result<Value, String> {
    let schema = batch.schema();
    let mut cells = Map::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if readable(field.data_type()) {
            let value =
                cell(column.as_ref(), row).map_err(|problem| format!("column `{}`: {problem}", field.name()))?;
            cells.insert(field.name().clone(), value);
        }
    }
    Ok(Value::Object(cells))
}

fn cell(array: &dyn Array, row: usize) -> Result<Value, String> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let list = |items: ArrayRef| (0..items.len()).map(|index| cell(items.as_ref(), index)).collect::<Result<_, _>>();
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::List(_) => Value::Array(list(array.as_list::<i32>().value(row))?),
        DataType::LargeList(_) => Value::Array(list(array.as_list::<i64>().value(row))?),
        DataType::FixedSizeList(..) => Value::Array(list(array.as_fixed_size_list().value(row))?),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let cells = columns.map(|(field, column)| Ok((field.name().clone(), cell(column.as_ref(), row)?)));
            Value::Object(cells.collect::<Result<_, String>>()?)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = cell(dictionary.keys(), row)?.as_u64().and_then(|key| usize::try_from(key).ok());
            let key = key.filter(|key| *key < dictionary.values().len()).ok_or("a key of the dictionary is missing")?;
            cell(dictionary.values().as_ref(), key)?
        }
        other => return Err(format!("type {other} cannot be read")),
    })
}
