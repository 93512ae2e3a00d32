//! `txn`: executes a transaction.
//!
//! Standard input has three sections, each terminated by an empty line: comparisons, requests on
//! success, requests on failure.
//!
//! ```text
//! mod("key1") > "0"
//!
//! put key1 "overwrote-key1"
//!
//! put key1 "created-key1"
//!
//! ```

use std::io::BufRead;

use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::context::{self, Context, failed};
use super::{del, get, put, words};
use crate::cli::{Arg, Command, Exit, ExitKind, Flag, FlagSet, Invocation, parse_flags};
use crate::go::number::parse_int;
use crate::go::quote::{quote, unquote};
use crate::print::{Reply, print_line};

const LONG: &str = "\
Reads a transaction from standard input and executes it. It has three sections, each terminated by an empty line:
comparisons, requests to execute if all of them succeed, and requests to execute otherwise.

  mod(\"key1\") > \"0\"

  put key1 \"overwritten\"

  put key1 \"created\"
  put key2 \"some more\"

Comparisons are ver, create, mod, val or lease of a key, then =, !=, < or >, then a quoted value;\nlease ids are hexadecimal.";

/// The `txn` command.
pub(crate) fn command() -> Command {
    Command::new("txn", "[options]", "Execute a transaction", run)
        .long(LONG)
        .flags([Flag::switch("interactive", "prompt for each section").short('i')])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(Exit::bad_args("txn command does not accept argument"));
    }
    let prompts = invocation.flags.bool("interactive");
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let request = read_request(&mut std::io::stdin().lock(), prompts)?;
        let response = client.txn(request).await.map_err(failed)?;
        context.print(&Reply::Txn(&response))
    })
}

fn invalid(text: impl ToString) -> Exit {
    Exit::new(ExitKind::InvalidInput, text)
}

fn read_request(input: &mut impl BufRead, prompts: bool) -> Result<TxnRequest, Exit> {
    let prompt = |text: &str| if prompts { print_line(text) } else { Ok(()) };
    prompt("compares:")?;
    let compare = read_section(input, parse_compare)?;
    prompt("success requests (get, put, del):")?;
    let success = read_section(input, parse_op)?;
    prompt("failure requests (get, put, del):")?;
    let failure = read_section(input, parse_op)?;
    Ok(TxnRequest {
        compare,
        success,
        failure,
    })
}

fn read_section<T>(
    input: &mut impl BufRead,
    parse: impl Fn(&str) -> Result<T, Exit>,
) -> Result<Vec<T>, Exit> {
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(invalid)?;
        // A last line without a newline does not count: the section is not terminated.
        if !line.ends_with(b"\n") {
            return Err(invalid("EOF"));
        }
        match String::from_utf8_lossy(&line).trim() {
            "" => return Ok(items),
            line => items.push(parse(line)?),
        }
    }
}

/// Parses `TARGET("key") OP "value"`.
fn parse_compare(line: &str) -> Result<Compare, Exit> {
    let malformed = || invalid(format!("malformed comparison: {line}"));
    let (target, operands) = line.split_once('(').ok_or_else(malformed)?;
    let (key, op, value) = scan_operands(operands).map_err(|partial| {
        let Partial { key, op, value } = partial;
        let got = format!("got {target}({}) {op} {}", quote(&key), quote(&value));
        invalid(format!("malformed comparison: {line}; {got}"))
    })?;
    let number = |base| {
        let text = String::from_utf8_lossy(&value);
        parse_int(&text, base).map_err(|_| invalid(format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number(10)?),
        ),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (
            CompareTarget::Value,
            TargetUnion::Value(value.clone().into()),
        ),
        // In hexadecimal, as `lease grant` prints it and as etcd accepts it after 3.7; etcd 3.7.1
        // panics.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => {
            return Err(invalid(format!(
                "malformed comparison: {line} (unknown target {target})"
            )));
        }
    };
    let result = match op.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => {
            return Err(invalid(format!(
                "malformed comparison: {line} (unknown operator {op})"
            )));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// The operands parsed before an error, for its text.
#[derive(Default)]
struct Partial {
    key: Vec<u8>,
    op: String,
    value: Vec<u8>,
}

/// Parses `"key") OP "value"`; the spaces around the operator are required.
fn scan_operands(text: &str) -> Result<(Vec<u8>, String, Vec<u8>), Partial> {
    let mut read = Partial::default();
    let Ok((key, rest)) = unquote(text.trim_start()) else {
        return Err(read);
    };
    read.key = key;
    let Some(rest) = rest
        .strip_prefix(')')
        .filter(|rest| rest.starts_with([' ', '\t']))
    else {
        return Err(read);
    };
    let rest = rest.trim_start();
    let op_end = rest.find([' ', '\t']).unwrap_or(rest.len());
    read.op = rest[..op_end].to_owned();
    match unquote(rest[op_end..].trim_start()) {
        Ok((value, _)) => Ok((read.key, read.op, value)),
        Err(_) => Err(read),
    }
}

/// Parses a line such as `put key value --prev-kv`.
fn parse_op(line: &str) -> Result<RequestOp, Exit> {
    let words = words::split(line)?;
    let [name, _, ..] = words.as_slice() else {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    };
    let unknown = || invalid(format!("invalid txn request: {line}"));
    let request = match name.as_slice() {
        b"put" => {
            let (flags, args) = op_flags(put::flags(), &words[1..]).ok_or_else(unknown)?;
            let request = put::request(&flags, &args, put::ValueSource::Nothing)?;
            Request::RequestPut(request)
        }
        b"get" => {
            let (flags, args) = op_flags(get::flags(), &words[1..]).ok_or_else(unknown)?;
            Request::RequestRange(get::request(&flags, &args)?)
        }
        b"del" => {
            let (flags, args) = op_flags(del::flags(), &words[1..]).ok_or_else(unknown)?;
            Request::RequestDeleteRange(del::request(&flags, &args)?)
        }
        _ => return Err(unknown()),
    };
    Ok(RequestOp {
        request: Some(request),
    })
}

fn op_flags(declared: Vec<Flag>, words: &[Arg]) -> Option<(FlagSet, Vec<Arg>)> {
    let mut flags = FlagSet::default();
    flags.declare(&declared, false);
    let args = parse_flags(&mut flags, words).ok()?;
    Some((flags, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, Exit>) -> String {
        let exit = result.err().expect("an error");
        assert_eq!(exit.code, 3);
        exit.message.expect("a text")
    }

    #[test]
    fn reads_comparisons() {
        let check =
            |line: &str, result: CompareResult, target: CompareTarget, union: TargetUnion| {
                let compare = parse_compare(line).expect("a valid line");
                assert_eq!(
                    (compare.result(), compare.target(), compare.target_union),
                    (result, target, Some(union))
                );
                assert_eq!(compare.key, "k\t");
            };
        check(
            r#"mod("k\t") > "0""#,
            CompareResult::Greater,
            CompareTarget::Mod,
            TargetUnion::ModRevision(0),
        );
        check(
            "ver(`k\t`)  =  \"3\"",
            CompareResult::Equal,
            CompareTarget::Version,
            TargetUnion::Version(3),
        );
        check(
            r#"c("k\t") < "-1" x"#,
            CompareResult::Less,
            CompareTarget::Create,
            TargetUnion::CreateRevision(-1),
        );
        check(
            r#"value("k\t") != "a b""#,
            CompareResult::NotEqual,
            CompareTarget::Value,
            TargetUnion::Value("a b".into()),
        );
        check(
            r#"lease("k\t") = "44d0004440578083""#,
            CompareResult::Equal,
            CompareTarget::Lease,
            TargetUnion::Lease(0x44d0_0044_4057_8083),
        );
    }

    #[test]
    fn names_what_is_wrong_with_comparisons() {
        let check = |line: &str, text: &str| assert_eq!(message(parse_compare(line)), text);
        check("mod q1", "malformed comparison: mod q1");
        check(
            r#"mod("q1")>"0""#,
            r#"malformed comparison: mod("q1")>"0"; got mod("q1")  """#,
        );
        check(
            r#"mod("q1") = 3"#,
            r#"malformed comparison: mod("q1") = 3; got mod("q1") = """#,
        );
        check(
            r#"foo("q1") = "x""#,
            r#"malformed comparison: foo("q1") = "x" (unknown target foo)"#,
        );
        check(
            r#"mod("q1") = "abc""#,
            r#"invalid txn compare request: mod("q1") = "abc""#,
        );
        check(
            r#"mod("q1") ~ "1""#,
            r#"malformed comparison: mod("q1") ~ "1" (unknown operator ~)"#,
        );
    }

    #[test]
    fn reads_requests_with_their_flags() {
        let put = parse_op(r#"put --prev-kv k "a b""#).expect("a valid line");
        let Some(Request::RequestPut(put)) = put.request else {
            panic!("{put:?}")
        };
        assert_eq!(
            (&put.key[..], &put.value[..], put.prev_kv),
            (&b"k"[..], &b"a b"[..], true)
        );
        let del = parse_op("del p --prefix").expect("a valid line");
        let Some(Request::RequestDeleteRange(del)) = del.request else {
            panic!("{del:?}")
        };
        assert_eq!(&del.range_end[..], b"q");
        // The flags of one line do not affect the next.
        let get = parse_op("get p").expect("a valid line");
        let Some(Request::RequestRange(get)) = get.request else {
            panic!("{get:?}")
        };
        assert!(get.range_end.is_empty());
    }

    #[test]
    fn names_what_is_wrong_with_requests() {
        assert_eq!(message(parse_op("put")), "invalid txn compare request: put");
        assert_eq!(message(parse_op("foo bar")), "invalid txn request: foo bar");
        assert_eq!(
            message(parse_op("get k -w json")),
            "invalid txn request: get k -w json"
        );
    }

    #[test]
    fn a_value_is_not_read_from_the_input_that_holds_the_requests() {
        let exit = parse_op("put k").expect_err("there is no value");
        let text = "put command needs 1 argument and input from stdin or 2 arguments";
        assert_eq!((exit.message.as_deref(), exit.code), (Some(text), 128));
        assert!(parse_op("put k --ignore-value").is_ok());
    }

    #[test]
    fn sections_end_with_an_empty_line() {
        let read = |text: &str| read_request(&mut text.as_bytes(), false);
        let request = read("mod(\"k\") > \"0\"\n \nput a b\nget a\n\n\n").expect("three sections");
        assert_eq!(
            (
                request.compare.len(),
                request.success.len(),
                request.failure.len()
            ),
            (1, 2, 0)
        );
        assert_eq!(message(read("\n\n")), "EOF");
        assert_eq!(message(read("\n\nput a b")), "EOF");
    }
}
