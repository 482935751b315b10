"""What the environment says of a Kafka cluster reaches its client, or is refused in one line that holds no secret."""

from __future__ import annotations

import pytest

from forebay.errors import ConfigError
from streaming.kafka_client import client_settings
from tests.infra.server import free_port
from tests.infra.tansu import Tansu
from tests.infra.tls import TlsProxy
from tests.streaming.test_kafka_log import Following, numbers, source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_offset_reset": "latest"}, "FOREBAY_KAFKA_AUTO_OFFSET_RESET cannot be used: it belongs to the flow"),
        ({"bootstrap_servers": "a:1"}, "FOREBAY_KAFKA_BOOTSTRAP_SERVERS cannot be used: set FOREBAY_KAFKA_BROKERS"),
        ({"metadata_broker_list": "a:1"}, "METADATA_BROKER_LIST cannot be used: set FOREBAY_KAFKA_BROKERS instead"),
        ({"default_topic_config": "x"}, "Kafka's client refuses its settings"),
        ({"sasl_pasword": "hunter2"}, 'No such configuration property: "sasl.pasword"'),
        ({"security_protocol": "hunter2"}, "Invalid value"),
        ({"ssl_key_pem": "hunter2", "security_protocol": "ssl"}, "Kafka's client refuses its settings"),
    ],
)
def test_settings_that_cannot_be_used_are_named_without_their_secrets(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Following("127.0.0.1:1", "t", **settings)
    if "security_protocol" not in settings or "ssl_key_pem" in settings:
        assert "hunter2" not in str(caught.value)


def test_offsets_are_the_flow_s_and_what_was_aborted_is_not_read() -> None:
    made = client_settings(source("t"), {"brokers": "a:1"})
    expected = {"enable.auto.commit": False, "enable.auto.offset.store": False, "isolation.level": "read_committed"}
    assert {name: made[name] for name in expected} == expected
    for name in expected:
        with pytest.raises(ConfigError, match="cannot be used: it belongs to the flow"):
            client_settings(source("t"), {"brokers": "a:1", name: "true"})


def test_settings_of_tls_are_passed_on(namespace: str) -> None:
    port = free_port()
    with Tansu(advertised=port) as broker, TlsProxy(port, broker.listens_on) as proxy:
        broker.settings = {"security.protocol": "ssl", "ssl.ca.location": str(proxy.authority)}
        broker.create(namespace)
        broker.append(namespace, 0, numbers(0, 10))
        trusting = {"security_protocol": "ssl", "ssl_ca_location": str(proxy.authority)}
        following = Following(broker.brokers, namespace, until_end=True, **trusting)
        assert following.read_to_the_end() == {f"{namespace}:0": numbers(0, 10)}
        with pytest.raises(ConfigError, match=r"Not let in to topic .*FOREBAY_KAFKA_SSL_…"):
            Following(broker.brokers, namespace, security_protocol="ssl")


def test_settings_of_sasl_are_passed_on_and_a_refusal_is_said_at_once(namespace: str) -> None:
    with Tansu(authentication=True) as broker:
        who = {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "me", "sasl_password": "hunter2"}
        with pytest.raises(ConfigError, match=r"Not let in .* broker responded with unknown-user") as refused:
            Following(broker.brokers, namespace, security_protocol="sasl_plaintext", **who)
    assert "hunter2" not in str(refused.value)
    dotted = {name.replace("_", "."): value for name, value in who.items()}  # no broker of the tests keeps a user
    assert dotted.items() <= client_settings(source("t"), dotted | {"brokers": "a:1"}).items()


def test_a_topic_without_brokers_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no brokers; set FOREBAY_KAFKA_BROKERS=host:port"):
        Following("", "t")


@pytest.mark.parametrize(
    "brokers", ["a:1", "a.b-c:1, d", "SASL_SSL://a:1,[::1]:2,", "localhost", "a:1,,b:2", "[::ffff:127.0.0.1]:1", "a:1/"]
)
def test_addresses_of_brokers_are_as_the_client_takes_them(brokers: str) -> None:
    assert client_settings(source("t"), {"brokers": brokers})["bootstrap.servers"] == brokers


@pytest.mark.parametrize(
    ("brokers", "message"),
    [
        ("kafka://a:1", "FOREBAY_KAFKA_BROKERS: it is not of the form host:port"),
        ("me:hunter2@a:1", "FOREBAY_KAFKA_BROKERS: it is not of the form host:port"),
        ("a:1,b:hunter2", "FOREBAY_KAFKA_BROKERS: address 2 of 2 is not of the form host:port"),
        ("a:99999", "FOREBAY_KAFKA_BROKERS: it is not of the form host:port"),
        (",", "FOREBAY_KAFKA_BROKERS: it is not of the form host:port"),
    ],
)
def test_addresses_that_nobody_could_be_reached_at_are_refused(brokers: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Following(brokers, "t")
    assert "hunter2" not in str(caught.value)
