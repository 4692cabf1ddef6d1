//! PostgreSQL connections: cached statements, many rows a round trip, one schema a service.

use std::{collections::HashMap, error::Error as StdError};

use bytes::BytesMut;
use postgres::{
    Client, NoTls, Statement,
    error::SqlState,
    types::{IsNull, ToSql, Type, to_sql_checked},
};

use super::{Connection, Dialect, Durability, Error, Row, Tx, Value};

pub(super) struct Postgres {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    pub(super) fn open(url: &str, schema: &str, read_only: bool) -> Result<Self, Error> {
        let fail = |e: postgres::Error| Error::Open { database: super::redact(url), message: describe(&e) };
        let mut client = Client::connect(url, NoTls).map_err(fail)?;
        if !read_only && schema != "public" {
            client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"")).map_err(fail)?;
        }
        client.batch_execute(&format!("SET search_path TO \"{schema}\"")).map_err(fail)?;
        Ok(Self { client, statements: HashMap::new() })
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).map_err(error)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// `INSERT ... VALUES ($1, $2) tail` as one statement for any number of rows: each parameter is the array of a column.
fn of_columns(sql: &str, types: &[Type]) -> Result<String, Error> {
    let shape = || Error::Statement(format!("not of the form INSERT ... VALUES (...): {sql}"));
    let start = sql.to_ascii_uppercase().find("VALUES").ok_or_else(shape)?;
    let close = sql[start..].find(')').ok_or_else(shape)? + start;
    let columns: Vec<String> =
        types.iter().enumerate().map(|(index, kind)| format!("${}::{}[]", index + 1, kind.name())).collect();
    Ok(format!("{}SELECT * FROM unnest({}){}", &sql[..start], columns.join(", "), &sql[close + 1..]))
}

/// A column of values as an array of its type.
#[derive(Debug)]
struct Column<'a> {
    rows: &'a [Vec<Value>],
    index: usize,
}

impl ToSql for Column<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let column: Vec<&Value> = self.rows.iter().map(|row| row.get(self.index).unwrap_or(&Value::Null)).collect();
        column.to_sql(ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Tx for Postgres {
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        let statement = self.prepare(sql)?;
        self.client.execute(&statement, &parameters(params)).map_err(error)
    }

    fn execute_many(&mut self, sql: &str, rows: &[Vec<Value>]) -> Result<u64, Error> {
        let Some(width) = rows.first().map(Vec::len) else { return Ok(0) };
        let one = self.prepare(sql)?;
        if let [row] = rows {
            return self.client.execute(&one, &parameters(row)).map_err(error);
        }
        let statement = self.prepare(&of_columns(sql, one.params())?)?;
        let columns: Vec<Column<'_>> = (0..width).map(|index| Column { rows, index }).collect();
        let columns: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
        self.client.execute(&statement, &columns).map_err(error)
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        let statement = self.prepare(sql)?;
        let rows = self.client.query(&statement, &parameters(params)).map_err(error)?;
        rows.iter().map(|row| (0..row.len()).map(|i| column(row, i)).collect::<Result<_, _>>().map(Row)).collect()
    }

    fn commits_of_others(&mut self) -> Result<Option<i64>, Error> {
        Ok(None)
    }

    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }
}

impl Connection for Postgres {
    fn begin_as(&mut self, durability: Durability) -> Result<(), Error> {
        self.batch(match durability {
            Durability::Committed => "BEGIN; SET LOCAL synchronous_commit TO off",
            Durability::Synced => "BEGIN",
        })
    }

    fn batch(&mut self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).map_err(error)
    }

    fn is_broken(&mut self) -> bool {
        self.client.is_closed()
    }
}

/// Takes the advisory lock of a schema for as long as the connection lives.
pub(super) fn own(connection: &mut dyn Connection, schema: &str) -> Result<(), Error> {
    let taken = connection.query("SELECT pg_try_advisory_lock(hashtext($1))::int", &[Value::from(schema)])?;
    match taken.first().map(|row| row.int(0)).transpose()? {
        Some(1) => Ok(()),
        _ => Err(Error::Owned(format!("schema {schema}"))),
    }
}

fn column(row: &postgres::Row, index: usize) -> Result<Value, Error> {
    let kind = row.columns()[index].type_();
    match *kind {
        Type::BOOL => row.try_get::<_, Option<bool>>(index).map(Value::from),
        Type::INT2 => row.try_get::<_, Option<i16>>(index).map(|v| v.map(i64::from).into()),
        Type::INT4 => row.try_get::<_, Option<i32>>(index).map(|v| v.map(i64::from).into()),
        Type::INT8 => row.try_get::<_, Option<i64>>(index).map(Value::from),
        Type::FLOAT4 => row.try_get::<_, Option<f32>>(index).map(|v| v.map(f64::from).into()),
        Type::FLOAT8 => row.try_get::<_, Option<f64>>(index).map(Value::from),
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index).map(Value::from),
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR => {
            row.try_get::<_, Option<String>>(index).map(Value::from)
        }
        _ => return Err(Error::Statement(format!("column {index} has the unsupported type {kind}"))),
    }
    .map_err(error)
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match (self, ty) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Int(value), &Type::INT8) => value.to_sql(ty, out),
            (Self::Int(value), &Type::INT4) => i32::try_from(*value)?.to_sql(ty, out),
            (Self::Int(value), &Type::INT2) => i16::try_from(*value)?.to_sql(ty, out),
            (Self::Int(value), &Type::BOOL) => (*value != 0).to_sql(ty, out),
            (Self::Int(value), &Type::FLOAT8) => (*value as f64).to_sql(ty, out),
            (Self::Real(value), &Type::FLOAT8) => value.to_sql(ty, out),
            (Self::Text(value), &Type::TEXT | &Type::VARCHAR | &Type::BPCHAR | &Type::NAME | &Type::UNKNOWN) => {
                value.to_sql(ty, out)
            }
            (Self::Blob(value), &Type::BYTEA) => value.to_sql(ty, out),
            _ => Err(format!("a value of this kind does not fit a column of type {ty}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn describe(error: &postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
        |db| db.message().to_owned(),
    )
}

/// Whether the server will do the same later: it shuts down, starts, has lost the connection or has chosen the transaction to end a
/// deadlock.
fn is_passing(state: &SqlState) -> bool {
    let shutdown = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    state.code().starts_with("08") || *state == SqlState::T_R_DEADLOCK_DETECTED || shutdown.contains(state)
}

fn error(error: postgres::Error) -> Error {
    let text = describe(&error);
    match error.code() {
        Some(&(SqlState::UNIQUE_VIOLATION | SqlState::FOREIGN_KEY_VIOLATION | SqlState::CHECK_VIOLATION)) => {
            Error::Constraint(text)
        }
        Some(&SqlState::NOT_NULL_VIOLATION) => Error::Constraint(text),
        Some(&SqlState::DISK_FULL) => Error::Full(text),
        Some(state) if is_passing(state) => Error::Unavailable(text),
        None if error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>()) => {
            Error::Unavailable(text)
        }
        _ => Error::Statement(text),
    }
}
