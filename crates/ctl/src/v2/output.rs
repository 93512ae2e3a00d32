//! Output of the commands for keys. The bytes on stdout are interface.

use super::store::{Node, Response};
use crate::cli::Exit;
use crate::go::json;
use crate::print::print_bytes;
use crate::stderr;

/// An output format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The value.
    Simple,
    /// The value below a few lines about the node.
    Extended,
    /// The answer, with the fields in the order of etcd's client.
    Json,
    /// Another word. It is complained about when something is to be printed.
    Unknown(String),
}

impl Format {
    /// The format of this name; none given is `simple`.
    pub(super) fn parse(name: &str) -> Format {
        match name {
            "simple" | "" => Format::Simple,
            "extended" => Format::Extended,
            "json" => Format::Json,
            other => Format::Unknown(other.to_owned()),
        }
    }
}

/// Prints an answer.
///
/// # Errors
/// Stdout is closed.
pub(super) fn print(response: &Response, format: &Format) -> Result<(), Exit> {
    print_bytes(render(response, format).as_bytes())?;
    if let Format::Unknown(name) = format {
        stderr::write_line(format_args!("Unsupported output format: {name}"));
    }
    Ok(())
}

fn render(response: &Response, format: &Format) -> String {
    match format {
        Format::Simple => simple(response),
        Format::Extended => extended(response),
        Format::Json => json(response) + "\n",
        Format::Unknown(_) => String::new(),
    }
}

fn simple(response: &Response) -> String {
    match response.action.as_str() {
        "delete" => {
            let before = response.prev_node.as_ref();
            let value = before.map_or("", |node| node.value.as_str());
            format!("PrevNode.Value: {value}\n")
        }
        _ => format!("{}\n", response.node.value),
    }
}

fn extended(response: &Response) -> String {
    let node = &response.node;
    let mut text = format!(
        "Key: {}\nCreated-Index: {}\nModified-Index: {}\n",
        node.key, node.created_index, node.modified_index
    );
    if let Some(before) = &response.prev_node {
        text += &format!("PrevNode.Value: {}\n", before.value);
    }
    text += &format!("TTL: {}\nIndex: {}\n", node.ttl, response.index);
    if response.action != "delete" {
        text += &format!("\n{}\n", node.value);
    }
    text
}

fn json(response: &Response) -> String {
    let mut text = String::new();
    json::object(&mut text, |o| {
        o.string("action", &response.action);
        push_node(o.field("node"), &response.node);
        match &response.prev_node {
            Some(node) => push_node(o.field("prevNode"), node),
            None => o.value("prevNode", "null"),
        }
    });
    text
}

fn push_node(out: &mut String, node: &Node) {
    json::object(out, |o| {
        o.string("key", &node.key);
        o.value_opt("dir", node.dir);
        o.string("value", &node.value);
        match &node.nodes {
            Some(nodes) => json::array(o.field("nodes"), nodes, push_node),
            None => o.value("nodes", "null"),
        }
        o.value("createdIndex", node.created_index);
        o.value("modifiedIndex", node.modified_index);
        if let Some(expiration) = &node.expiration {
            o.string("expiration", expiration);
        }
        o.value_opt("ttl", node.ttl);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(action: &str) -> Response {
        let node = Node {
            key: "/k".to_owned(),
            value: "<new>".to_owned(),
            created_index: 3,
            modified_index: 5,
            expiration: Some("2026-11-21T10:43:29Z".to_owned()),
            ttl: 9,
            ..Node::default()
        };
        let before = Node {
            value: "old".to_owned(),
            ..Node::default()
        };
        Response {
            action: action.to_owned(),
            node,
            prev_node: Some(before),
            index: 6,
        }
    }

    #[test]
    fn formats_differ() {
        let check = |action: &str, format: &str, text: &str| {
            assert_eq!(render(&response(action), &Format::parse(format)), text);
        };
        check("set", "", "<new>\n");
        check("delete", "simple", "PrevNode.Value: old\n");
        let lines = "Key: /k\nCreated-Index: 3\nModified-Index: 5\nPrevNode.Value: old\n\
                     TTL: 9\nIndex: 6\n";
        check("delete", "extended", lines);
        check("compareAndDelete", "extended", &format!("{lines}\n<new>\n"));
        check("set", "table", "");
    }

    #[test]
    fn json_has_the_order_of_etcds_client() {
        let text = concat!(
            r#"{"action":"set","node":{"key":"/k","value":"\u003cnew\u003e","nodes":null,"#,
            r#""createdIndex":3,"modifiedIndex":5,"expiration":"2026-11-21T10:43:29Z","ttl":9},"#,
            r#""prevNode":{"key":"","value":"old","nodes":null,"createdIndex":0,"#,
            r#""modifiedIndex":0}}"#
        );
        assert_eq!(json(&response("set")), text);
        let mut listed = response("get");
        listed.prev_node = None;
        listed.node = Node {
            dir: true,
            nodes: Some(vec![Node::default()]),
            ..Node::default()
        };
        let text = concat!(
            r#"{"action":"get","node":{"key":"","dir":true,"value":"","nodes":[{"key":"","#,
            r#""value":"","nodes":null,"createdIndex":0,"modifiedIndex":0}],"createdIndex":0,"#,
            r#""modifiedIndex":0},"prevNode":null}"#
        );
        assert_eq!(json(&listed), text);
    }
}
