"""The broker's policy on a real node."""

import threading

from regions import topology


def test_the_policy_waits_for_a_node_that_lets_clients_in_before_it_is_done(rabbitmq):
    """So it was on a busy machine: a client could log in, and rabbitmqctl said that the node was not running."""
    assert rabbitmq.ctl("stop_app").returncode == 0
    rabbitmq.ctl("clear_policy", topology.POLICY_NAME)
    faults = []

    def set_policy() -> None:
        try:
            rabbitmq.set_policy()
        except Exception as error:  # noqa: BLE001 - whatever it was, the test's thread must know
            faults.append(error)

    thread = threading.Thread(target=set_policy)
    thread.start()
    assert rabbitmq.ctl("start_app").returncode == 0
    thread.join(90)
    assert faults == []
    assert topology.POLICY_NAME in rabbitmq.ctl("list_policies").stdout
