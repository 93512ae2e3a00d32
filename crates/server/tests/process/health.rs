//! What probes are told is found in the log as well.

use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{AlarmRequest, AlarmType};

use super::place::Place;

#[tokio::test]
async fn why_a_probe_has_failed_is_logged() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: 7,
        alarm: AlarmType::Corrupt.into(),
    };
    maintenance.alarm(alarm).await.unwrap();
    for (path, answer, line) in [
        (
            "/health",
            r#"{"health":"false","reason":"ALARM CORRUPT"}"#,
            r#""msg":"/health error","output":"{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}","status-code":503"#,
        ),
        (
            "/readyz/data_corruption",
            "[-]data_corruption failed: alarm activated: CORRUPT\n",
            r#""msg":"Health check error","path":"/readyz/data_corruption","reason":"[-]data_corruption failed: alarm activated: CORRUPT\n","status-code":503"#,
        ),
        (
            "/livez?exclude=serializable_read&exclude=nothing",
            "ok\n",
            r#""msg":"some health checks cannot be excluded","missing-health-checks":"\"nothing\"""#,
        ),
    ] {
        let page = server.page(path);
        assert!(page.contains(answer), "{path}: {page}");
        server.wait_for(line);
    }
}
