/* Reads a table of persons and derives their keys. Called by client/worker, on its main thread. */
#include "client/data/persons.h"

#include "client/data/columns.h"
#include "common/base/file.h"

#include <string.h>

#define FIRST_CAPACITY 1024

struct reader {
    const cs_plan *plan;
    const cs_site_dataset *dataset;
    const char *name;
    cs_columns columns;
    bool uses[CS_FIELDS]; /* some key is made of it */
    size_t fields[CS_FIELDS];
    size_t patient;
    size_t capacity;
    cs_persons *persons;
};

static void reader_clear(struct reader *reader)
{
    cs_columns_clear(&reader->columns);
    cs_persons_free(reader->persons);
}

void cs_persons_free(cs_persons *persons)
{
    if (persons == NULL)
        return;
    if (persons->keys != NULL)
        explicit_bzero(persons->keys, persons->count * persons->keys_count * sizeof *persons->keys);
    for (size_t i = 0; persons->patients != NULL && i < persons->count; i++)
        cs_free(persons->patients[i]);
    cs_free(persons->keys);
    cs_free(persons->present);
    cs_free(persons->lines);
    cs_free(persons->patients);
    cs_free(persons);
}

/* ---- columns ---- */

static void find_uses(struct reader *reader)
{
    const cs_alignment *alignment = &reader->plan->alignment;
    for (size_t i = 0; i < alignment->keys_count; i++) {
        for (size_t j = 0; j < alignment->keys[i].parts_count; j++) {
            const cs_identity_part part = alignment->keys[i].parts[j];
            reader->uses[cs_identity_part_field(part)] = true;
            reader->uses[CS_FIELD_FAMILY] |= part == CS_PART_NAMES;
        }
    }
}

static bool has_any_key(const struct reader *reader)
{
    const cs_alignment *alignment = &reader->plan->alignment;
    for (size_t i = 0; i < alignment->keys_count; i++) {
        bool has_all = true;
        for (size_t j = 0; j < alignment->keys[i].parts_count; j++) {
            const cs_identity_part part = alignment->keys[i].parts[j];
            has_all = has_all && reader->fields[cs_identity_part_field(part)] != CS_NO_COLUMN &&
                      (part != CS_PART_NAMES || reader->fields[CS_FIELD_FAMILY] != CS_NO_COLUMN);
        }
        if (has_all)
            return true;
    }
    return false;
}

/* A site that does not have a field at all has no keys made of it, as a row without it. It must have one kind of key.
 */
static cs_status find_columns(struct reader *reader)
{
    find_uses(reader);
    for (cs_identity_field field = 0; field < CS_FIELDS; field++) {
        reader->fields[field] = CS_NO_COLUMN;
        if (reader->uses[field] && cs_columns_have(&reader->columns, cs_identity_field_name(field)))
            CS_TRY(cs_columns_find(&reader->columns, cs_identity_field_name(field), &reader->fields[field]));
    }
    reader->patient = CS_NO_COLUMN;
    if (reader->dataset->patient != NULL)
        CS_TRY(cs_columns_find_here(&reader->columns, reader->dataset->patient, &reader->patient));
    if (has_any_key(reader))
        return CS_OK;
    /* Name a column that is missing. */
    for (cs_identity_field field = 0; field < CS_FIELDS; field++) {
        size_t ignored;
        if (reader->uses[field] && reader->fields[field] == CS_NO_COLUMN)
            CS_TRY(cs_columns_find(&reader->columns, cs_identity_field_name(field), &ignored));
    }
    return cs_fail(CS_INVALID, "%s: no kind of key of the plan can be made", reader->name);
}

/* ---- rows ---- */

static cs_status make_room(struct reader *reader)
{
    cs_persons *persons = reader->persons;
    if (persons->count < reader->capacity)
        return CS_OK;
    if (persons->count >= CS_PERSONS_MAX)
        return cs_fail(CS_EXHAUSTED, "%s: more than %u rows", reader->name, CS_PERSONS_MAX);
    const size_t capacity = CS_MAX(reader->capacity * 2, (size_t)FIRST_CAPACITY);
    persons->keys = cs_realloc(persons->keys, capacity * persons->keys_count * sizeof *persons->keys);
    persons->present = cs_realloc(persons->present, capacity);
    persons->lines = cs_realloc(persons->lines, capacity * sizeof *persons->lines);
    if (reader->patient != CS_NO_COLUMN)
        persons->patients = cs_realloc(persons->patients, capacity * sizeof *persons->patients);
    reader->capacity = capacity;
    return CS_OK;
}

static void count_fields(struct reader *reader, const cs_identity *identity, size_t line)
{
    cs_persons_count *counted = &reader->persons->counted;
    for (cs_identity_field field = 0; field < CS_FIELDS; field++) {
        if (!reader->uses[field])
            continue;
        if (identity->unreadable & (1U << field)) {
            if (counted->unreadable[field]++ == 0)
                counted->unreadable_line[field] = line;
        } else if (identity->fields[field][0] == '\0') {
            counted->missing[field]++;
        }
    }
}

static cs_status add_row(struct reader *reader, const cs_csv_record *record)
{
    cs_persons *persons = reader->persons;
    cs_identity_text text = {0};
    cs_identity identity;

    CS_TRY(cs_columns_check(&reader->columns, record));
    CS_TRY(make_room(reader));
    for (cs_identity_field field = 0; field < CS_FIELDS; field++) {
        const size_t column = reader->fields[field];
        if (column != CS_NO_COLUMN && !cs_names_have(&reader->dataset->missing, record->fields[column]))
            text.fields[field] = record->fields[column];
    }
    cs_identity_normalize(&text, reader->dataset->dates, &identity);
    count_fields(reader, &identity, record->line);
    const size_t row = persons->count;
    persons->present[row] =
        (uint8_t)cs_identity_keys(&reader->plan->alignment, &identity, &persons->keys[row * persons->keys_count]);
    persons->lines[row] = (uint32_t)record->line;
    if (persons->patients != NULL)
        persons->patients[row] = cs_strdup(record->fields[reader->patient]);
    persons->count++;
    explicit_bzero(&identity, sizeof identity);
    return CS_OK;
}

static cs_status settle(cs_persons *persons)
{
    cs_persons_count *counted = &persons->counted;
    void *usable = NULL;
    for (size_t row = 0; row < persons->count; row++) {
        for (size_t key = 0; key < persons->keys_count; key++)
            counted->present[key] += persons->present[row] >> key & 1;
    }
    CS_TRY(cs_alloc_peer(persons->count + 1, 1, "kinds of key", &usable));
    const cs_status status =
        cs_psi_sort_out((const uint8_t(*)[CS_PSI_KEY_BYTES])persons->keys, persons->keys_count,
                        (uint32_t)persons->keys_count, persons->present, persons->count, usable, &counted->list);
    cs_free(persons->present);
    persons->present = usable;
    return status;
}

static cs_status read_all(struct reader *reader, cs_csv *csv)
{
    cs_csv_record record;
    cs_status status = cs_csv_next(csv, &record);
    if (status == CS_DONE)
        return cs_fail(CS_INVALID, "%s: the table is empty", reader->name);
    CS_TRY(status);
    CS_TRY(cs_columns_take(&reader->columns, reader->dataset, reader->name, &record));
    CS_TRY(find_columns(reader));
    if (!reader->dataset->has_header)
        CS_TRY(add_row(reader, &record));
    while ((status = cs_csv_next(csv, &record)) == CS_OK)
        CS_TRY(add_row(reader, &record));
    if (status != CS_DONE)
        return status;
    return settle(reader->persons);
}

cs_status cs_persons_read(const cs_plan *plan, const cs_site_dataset *dataset, cs_buffer *bytes, const char *name,
                          cs_persons **ret)
{
    struct reader reader = {.plan = plan, .dataset = dataset, .name = name};
    CS_AUTO_PTR(cs_csv) csv = cs_csv_open(bytes, name, dataset->delimiter);

    *ret = NULL;
    reader.persons = cs_alloc(sizeof *reader.persons);
    reader.persons->keys_count = plan->alignment.keys_count;
    const cs_status status = read_all(&reader, csv);
    if (status == CS_OK)
        *ret = CS_TAKE(reader.persons);
    reader_clear(&reader);
    return status;
}

cs_status cs_persons_load(const cs_plan *plan, const cs_site_dataset *dataset, const char *folder, cs_persons **ret)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, dataset->table);
    CS_AUTO(cs_buffer) bytes = CS_BUFFER_EMPTY;

    *ret = NULL;
    CS_TRY(cs_file_read_all(path, CS_CSV_MAX_BYTES, &bytes));
    const cs_status status = cs_persons_read(plan, dataset, &bytes, dataset->table, ret);
    cs_buffer_wipe(&bytes);
    return status;
}
