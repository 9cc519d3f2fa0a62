"""What must hold in every graph: each rule is a sentence and the SQL that counts what breaks it."""

RULES: tuple[tuple[str, str], ...] = (
    (
        "a quote lies outside its chunk",
        """SELECT count(*) FROM
               (SELECT chunk_id, "end" FROM evidence UNION ALL SELECT chunk_id, "end" FROM pattern_use) e
           JOIN chunk c ON c.id = e.chunk_id WHERE e."end" > length(c.text)""",
    ),
    (
        "a relation's weight is not the number of its pieces of evidence",
        """SELECT count(*) FROM relation r
           WHERE r.weight <> (SELECT count(*) FROM evidence e WHERE e.relation_id = r.id) OR r.weight = 0""",
    ),
    (
        "an entity is the end of no relation",
        """SELECT count(*) FROM entity e WHERE NOT EXISTS (SELECT 1 FROM relation r WHERE r.subject_id = e.id)
           AND NOT EXISTS (SELECT 1 FROM relation r WHERE r.object_id = e.id)""",
    ),
    (
        "a name of an entity is not used as often as is noted",
        """SELECT count(*) FROM entity_name n WHERE n.uses = 0 OR n.uses <> (
               SELECT count(*) FROM evidence e WHERE n.id IN (e.subject_name_id, e.object_name_id)
               AND e.id IN (SELECT id FROM evidence WHERE subject_name_id = n.id
                            UNION SELECT id FROM evidence WHERE object_name_id = n.id))""",
    ),
    (
        "evidence names an entity that its relation does not join",
        """SELECT count(*) FROM evidence e JOIN relation r ON r.id = e.relation_id
           JOIN entity_name s ON s.id = e.subject_name_id JOIN entity_name o ON o.id = e.object_name_id
           WHERE s.entity_id <> r.subject_id OR o.entity_id <> r.object_id""",
    ),
    (
        "an entity is seen under another than its merges say",
        """SELECT count(*) FROM entity e LEFT JOIN entity_merge m ON m.gone_id = e.id
           WHERE e.root_id <> coalesce((SELECT k.root_id FROM entity k WHERE k.id = m.keep_id), e.id)""",
    ),
    (
        "a pattern is shown by no text",
        "SELECT count(*) FROM pattern p WHERE NOT EXISTS (SELECT 1 FROM pattern_use u WHERE u.pattern_id = p.id)",
    ),
)
