/* Reads and checks the alignment of a vertical plan. Called by plan.c, on any thread. */
#include "common/config/alignment.h"

#include <string.h>

#define STUDY_MAX       128 /* bytes: it becomes part of a domain separation tag of at most 255 */
#define PATIENTS_MAX    (UINT64_C(1) << 28)
#define PARTS_MINIMUM   2 /* of a key: one part alone, but for a national id, names nobody */
#define DEFAULT_MINIMUM 20

static const cs_yaml_word parts[] = {{"given", CS_PART_GIVEN},
                                     {"family", CS_PART_FAMILY},
                                     {"given.phonetic", CS_PART_GIVEN_PHONETIC},
                                     {"family.phonetic", CS_PART_FAMILY_PHONETIC},
                                     {"given.initial", CS_PART_GIVEN_INITIAL},
                                     {"names", CS_PART_NAMES},
                                     {"birth_date", CS_PART_BIRTH_DATE},
                                     {"birth_year", CS_PART_BIRTH_YEAR},
                                     {"sex", CS_PART_SEX},
                                     {"postcode", CS_PART_POSTCODE},
                                     {"national_id", CS_PART_NATIONAL_ID},
                                     {NULL, 0}};
static const cs_yaml_word phonetic_codes[] = {
    {"soundex", CS_PHONETIC_SOUNDEX}, {"cologne", CS_PHONETIC_COLOGNE}, {NULL, 0}};

const char *cs_identity_part_name(cs_identity_part part)
{
    for (const cs_yaml_word *word = parts; word->text; word++) {
        if (word->value == (unsigned)part)
            return word->text;
    }
    return "unknown";
}

const char *cs_identity_field_name(cs_identity_field field)
{
    static const char *const names[CS_FIELDS] = {
        [CS_FIELD_GIVEN] = "given", [CS_FIELD_FAMILY] = "family",     [CS_FIELD_BIRTH_DATE] = "birth_date",
        [CS_FIELD_SEX] = "sex",     [CS_FIELD_POSTCODE] = "postcode", [CS_FIELD_NATIONAL_ID] = "national_id",
    };
    return names[field];
}

cs_identity_field cs_identity_part_field(cs_identity_part part)
{
    switch (part) {
    case CS_PART_GIVEN:
    case CS_PART_GIVEN_PHONETIC:
    case CS_PART_GIVEN_INITIAL:
    case CS_PART_NAMES:
        return CS_FIELD_GIVEN;
    case CS_PART_FAMILY:
    case CS_PART_FAMILY_PHONETIC:
        return CS_FIELD_FAMILY;
    case CS_PART_BIRTH_DATE:
    case CS_PART_BIRTH_YEAR:
        return CS_FIELD_BIRTH_DATE;
    case CS_PART_SEX:
        return CS_FIELD_SEX;
    case CS_PART_POSTCODE:
        return CS_FIELD_POSTCODE;
    case CS_PART_NATIONAL_ID:
        return CS_FIELD_NATIONAL_ID;
    }
    return CS_FIELDS;
}

static cs_status read_study(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    CS_TRY(cs_yaml_text(node, key, field));
    if (node->size == 0 || node->size > STUDY_MAX)
        return cs_yaml_refuse(node, "a text of 1 … %d bytes", STUDY_MAX);
    return CS_OK;
}

/* In the order of their numbers: [sex, given] and [given, sex] are the same key. */
static cs_status read_key(const cs_yaml_node *node, cs_alignment_key *ret)
{
    const cs_yaml_key words = {.words = parts};
    unsigned before = 0;

    CS_TRY(cs_yaml_expect_list(node, 1, CS_ALIGNMENT_PARTS_MAX));
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        unsigned part;
        CS_TRY(cs_yaml_choice(item, &words, &part));
        if (before & (1U << part))
            return cs_yaml_refuse(item, "each part once");
        before |= 1U << part;
    }
    for (unsigned part = 0; part < 32; part++) {
        if (before & (1U << part))
            ret->parts[ret->parts_count++] = (cs_identity_part)part;
    }
    if (ret->parts_count < PARTS_MINIMUM && ret->parts[0] != CS_PART_NATIONAL_ID)
        return cs_yaml_refuse(node, "at least %d parts, or national_id alone: fewer name many persons at once",
                              PARTS_MINIMUM);
    return CS_OK;
}

static cs_status read_keys(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_alignment *alignment = field;
    void *keys;

    (void)key;
    CS_TRY(cs_yaml_expect_list(node, 1, CS_ALIGNMENT_KEYS_MAX));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(cs_alignment_key), &keys));
    alignment->keys = keys;
    alignment->keys_count = node->count;
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        CS_TRY(read_key(item, &alignment->keys[item->index]));
        for (size_t i = 0; i < item->index; i++) {
            if (memcmp(&alignment->keys[i], &alignment->keys[item->index], sizeof(cs_alignment_key)) == 0)
                return cs_yaml_refuse(item, "each key once");
        }
    }
    return CS_OK;
}

static const cs_yaml_key any_keys[] = {
    CS_YAML_KEY("any", cs_yaml_u32, offsetof(cs_alignment, any_of), .low = 1, .high = CS_ALIGNMENT_SITES_MAX - 1,
                .is_required = true),
    {.name = NULL},
};

static cs_status read_cohort(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_alignment *alignment = field;

    (void)key;
    alignment->needs_all = cs_yaml_is(node, "all");
    if (alignment->needs_all)
        return CS_OK;
    if (node->kind != CS_YAML_MAPPING)
        return cs_yaml_refuse(node, "all or {any: N}");
    return cs_yaml_walk(node, any_keys, alignment);
}

static const cs_yaml_key alignment_keys[] = {
    CS_YAML_KEY("study", read_study, offsetof(cs_alignment, study), .is_required = true),
    CS_YAML_KEY("leader", cs_yaml_name, offsetof(cs_alignment, leader), .is_required = true),
    CS_YAML_KEY("keys", read_keys, 0, .is_required = true),
    CS_YAML_KEY("phonetic", cs_yaml_choice, offsetof(cs_alignment, phonetic), .words = phonetic_codes),
    CS_YAML_KEY("cohort", read_cohort, 0, .is_required = true),
    CS_YAML_KEY("minimum", cs_yaml_u32, offsetof(cs_alignment, minimum)),
    CS_YAML_KEY("patients", cs_yaml_u32, offsetof(cs_alignment, patients), .low = 1, .high = PATIENTS_MAX,
                .is_required = true),
    CS_YAML_KEY("mutual", cs_yaml_bool, offsetof(cs_alignment, is_mutual)),
    {.name = NULL},
};

cs_status cs_alignment_read(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    cs_alignment *alignment = field;

    (void)key;
    alignment->minimum = DEFAULT_MINIMUM;
    alignment->is_mutual = true;
    return cs_yaml_walk(node, alignment_keys, alignment);
}

cs_status cs_alignment_check(const cs_yaml_node *root, bool has_minimum, cs_plan *plan)
{
    const cs_alignment *alignment = &plan->alignment;
    const size_t count = plan->sites.invite.count;

    if (plan->sites.invites_all || count < 2 || count > CS_ALIGNMENT_SITES_MAX)
        return cs_yaml_refuse(cs_yaml_find(root, "sites.invite"), "a list of 2 … %d sites by name",
                              CS_ALIGNMENT_SITES_MAX);
    if (!cs_names_have(&plan->sites.invite, alignment->leader))
        return cs_yaml_refuse(cs_yaml_find(root, "alignment.leader"), "one of the invited sites");
    if (!alignment->needs_all && alignment->any_of > count - 1)
        return cs_yaml_refuse(cs_yaml_find(root, "alignment.cohort"), "at most %zu, the number of other parties",
                              count - 1);
    if (!alignment->is_mutual && count > 2)
        return cs_yaml_refuse(cs_yaml_find(root, "alignment.mutual"), "true where there are more than two parties");
    /* Every list passes every party, so none can be missing. */
    if (has_minimum && plan->sites.minimum != count)
        return cs_yaml_refuse(cs_yaml_find(root, "sites.minimum"), "%zu: an alignment needs everybody invited", count);
    plan->sites.minimum = (uint32_t)count;
    return CS_OK;
}

uint32_t cs_alignment_stop(uint32_t parties, uint32_t leader, uint32_t owner, uint32_t stop)
{
    if (stop == parties || (stop + 1 == parties && owner != leader))
        return leader;
    uint32_t at = owner;
    for (uint32_t passed = 0; passed < stop;) {
        at = (at + 1) % parties;
        passed += at != leader || owner == leader;
    }
    return at;
}
