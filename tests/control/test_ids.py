from control.ids import uuid7


def test_ids_are_version_7_and_sort_by_the_order_in_which_they_were_made() -> None:
    made = [uuid7() for _ in range(200)]
    assert {(u.version, u.variant) for u in made} == {(7, "specified in RFC 4122")}
    # Of the same quarter of a microsecond the order is open.
    assert [u.int >> 64 for u in made] == sorted(u.int >> 64 for u in made)
    assert len(set(made)) == len(made)
