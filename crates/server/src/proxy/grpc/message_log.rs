//! `--experimental-enable-grpc-logging`: every message in the log, as JSON. Unlike in etcd, messages
//! with passwords or tokens in them are left out.

use std::net::SocketAddr;

use retcd_proto::json::{self, Encoder, Schema};

use super::settings::Settings;
use crate::log::Remote;
use crate::metrics::Method;

/// Logs the messages of one call.
pub(super) struct MessageLog {
    method: Method,
    schemas: json::Method,
    remote: Option<SocketAddr>,
}

impl MessageLog {
    /// None unless messages are to be logged.
    pub(super) fn new(
        settings: &Settings,
        method: Method,
        remote: Option<SocketAddr>,
    ) -> Option<MessageLog> {
        let schemas = settings
            .logs_messages
            .then(|| json::Method::of_path(method.path()))?;
        Some(MessageLog {
            method,
            schemas: schemas.expect("the schemas have every method"),
            remote,
        })
    }

    pub(super) fn request(&self, message: &[u8]) {
        crate::info!("received payload logged as grpc.request.content field";
            "grpc.request.content" => self.text(self.schemas.request, message),
            "grpc.service" => self.method.service(), "grpc.method" => self.method.name(),
            "peer.address" => Remote(self.remote));
    }

    pub(super) fn answer(&self, message: &[u8]) {
        crate::info!("returned response payload logged as grpc.response.content field";
            "grpc.response.content" => self.text(self.schemas.response, message),
            "grpc.service" => self.method.service(), "grpc.method" => self.method.name(),
            "peer.address" => Remote(self.remote));
    }

    fn text(&self, schema: &'static Schema, message: &[u8]) -> String {
        if let Method::Authenticate | Method::UserAdd | Method::UserChangePassword = self.method {
            return "***".to_owned();
        }
        let mut json = Vec::new();
        let mut encoder = Encoder::new(schema, &mut json);
        encoder.push(message, &mut json);
        encoder.finish(&mut json);
        String::from_utf8_lossy(&json).into_owned()
    }
}
