/* The tree is built from libyaml's events, not by yaml_parser_load: what is refused is refused while it is read, before
 * it can grow. Called by the readers of this folder, on any thread. */
#include "common/config/yaml.h"

#include "common/base/loopback.h"

#include "common/base/command.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define TREE_BUDGET_BYTES ((size_t)64 * 1024 * 1024)
#define FOUND_BYTES       96

/* ---- sentences ---- */

/* What a peer wrote, for a sentence: shortened at a character's border, control characters as '?'. */
static void describe_text(char out[FOUND_BYTES], const char *text, const char *quote)
{
    size_t size = strlen(text);
    size_t shown = CS_MIN(size, (size_t)60);

    while (shown < size && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80)
        shown--;
    snprintf(out, FOUND_BYTES, "%s%.*s%s%s", quote, (int)shown, text, shown < size ? "…" : "", quote);
    for (char *c = out; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    }
}

static void append_path(cs_buffer *out, const cs_yaml_node *node)
{
    if (!node->parent)
        return;
    append_path(out, node->parent); /* at most CS_YAML_DEPTH_MAX deep */
    if (node->key) {
        char key[FOUND_BYTES];
        describe_text(key, node->key, "");
        cs_buffer_printf(out, "%s%s", out->size ? "." : "", key);
    } else {
        cs_buffer_printf(out, "[%zu]", node->index);
    }
}

static cs_status fail_at(const cs_yaml_node *node, size_t line, size_t column, const char *sentence)
{
    CS_AUTO(cs_buffer) path = CS_BUFFER_EMPTY;

    append_path(&path, node);
    return cs_fail(CS_INVALID, "%s:%zu:%zu: %s%s%s", node->document->source, line, column, cs_buffer_text(&path),
                   path.size ? ": " : "", sentence);
}

cs_status cs_yaml_fail(const cs_yaml_node *node, const char *sentence, ...)
{
    char text[CS_ERROR_TEXT_BYTES];
    va_list arguments;

    va_start(arguments, sentence);
    vsnprintf(text, sizeof text, sentence, arguments);
    va_end(arguments);
    return fail_at(node, node->line, node->column, text);
}

static bool is_nothing(const cs_yaml_node *node)
{
    return node->kind == CS_YAML_SCALAR && node->is_plain &&
           (node->size == 0 || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

cs_status cs_yaml_refuse(const cs_yaml_node *node, const char *expected, ...)
{
    char wanted[CS_ERROR_TEXT_BYTES / 2];
    char found[FOUND_BYTES];
    va_list arguments;

    va_start(arguments, expected);
    vsnprintf(wanted, sizeof wanted, expected, arguments);
    va_end(arguments);
    if (node->kind == CS_YAML_LIST)
        snprintf(found, sizeof found, "a list of %zu", node->count);
    else if (node->kind == CS_YAML_MAPPING)
        snprintf(found, sizeof found, "a mapping");
    else if (is_nothing(node))
        snprintf(found, sizeof found, "nothing");
    else
        describe_text(found, node->text, !node->is_plain ? "\"" : strchr("+-.0123456789", node->text[0]) ? "" : "'");
    return cs_yaml_fail(node, "found %s, expected %s", found, wanted);
}

/* ---- the tree ---- */

typedef struct builder {
    cs_yaml_document *document;
    cs_yaml_node *open; /* the innermost list or mapping */
    size_t depth;
    size_t nodes;
    const char *key; /* of the next value in `open` */
    size_t key_line, key_column;
} builder;

static cs_status refuse_event(const builder *builder, const yaml_event_t *event, const char *sentence)
{
    return cs_fail(CS_INVALID, "%s:%zu:%zu: %s", builder->document->source, event->start_mark.line + 1,
                   event->start_mark.column + 1, sentence);
}

static cs_status refuse_syntax(const char *source, const yaml_parser_t *parser)
{
    const char *problem = parser->problem ? parser->problem : "cannot be read";

    if (parser->error == YAML_MEMORY_ERROR)
        return cs_fail(CS_EXHAUSTED, "%s: no memory to read it", source);
    if (parser->error == YAML_READER_ERROR)
        return cs_fail(CS_INVALID, "%s: not YAML: %s at byte %zu, expected UTF-8 text", source, problem,
                       parser->problem_offset);
    return cs_fail(CS_INVALID, "%s:%zu:%zu: not YAML: %s%s%s", source, parser->problem_mark.line + 1,
                   parser->problem_mark.column + 1, parser->context ? parser->context : "", parser->context ? ", " : "",
                   problem);
}

static cs_status add_node(builder *builder, const yaml_event_t *event, cs_yaml_kind kind, cs_yaml_node **ret)
{
    cs_yaml_node *node;

    if (++builder->nodes > CS_YAML_NODES_MAX)
        return cs_fail(CS_INVALID, "%s: found more than %d values, expected at most that many",
                       builder->document->source, CS_YAML_NODES_MAX);
    node = cs_arena_alloc(builder->document->tree, sizeof *node);
    if (!node)
        return cs_fail(CS_EXHAUSTED, "%s: needs more memory than a document may", builder->document->source);
    node->document = builder->document;
    node->kind = kind;
    node->line = event->start_mark.line + 1;
    node->column = event->start_mark.column + 1;
    node->parent = builder->open;
    if (!builder->open) {
        builder->document->root = node;
    } else {
        node->key = builder->key;
        node->key_line = builder->key_line;
        node->key_column = builder->key_column;
        node->index = builder->open->count++;
        if (builder->open->last)
            builder->open->last->next = node;
        else
            builder->open->first = node;
        builder->open->last = node;
        builder->key = NULL;
    }
    *ret = node;
    return CS_OK;
}

static cs_status copy_scalar(builder *builder, const yaml_event_t *event, char **ret)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t size = event->data.scalar.length;

    if (size > CS_YAML_SCALAR_MAX)
        return cs_fail(CS_INVALID, "%s:%zu:%zu: found a text of %zu bytes, expected at most %d",
                       builder->document->source, event->start_mark.line + 1, event->start_mark.column + 1, size,
                       CS_YAML_SCALAR_MAX);
    if (memchr(value, 0, size))
        return refuse_event(builder, event, "found a text with a zero byte, expected none");
    *ret = cs_arena_strdup(builder->document->tree, value);
    if (!*ret)
        return cs_fail(CS_EXHAUSTED, "%s: needs more memory than a document may", builder->document->source);
    return CS_OK;
}

static bool wants_key(const builder *builder)
{
    return builder->open && builder->open->kind == CS_YAML_MAPPING && !builder->key;
}

static cs_status add_scalar(builder *builder, const yaml_event_t *event)
{
    cs_yaml_node *node;
    char *text;

    if (event->data.scalar.anchor || event->data.scalar.tag)
        return refuse_event(builder, event, "found an anchor or tag, expected a plain value");
    CS_TRY(copy_scalar(builder, event, &text));
    if (wants_key(builder)) {
        if (!*text)
            return refuse_event(builder, event, "found an empty key, expected a name");
        builder->key = text;
        builder->key_line = event->start_mark.line + 1;
        builder->key_column = event->start_mark.column + 1;
        return CS_OK;
    }
    CS_TRY(add_node(builder, event, CS_YAML_SCALAR, &node));
    node->text = text;
    node->size = event->data.scalar.length;
    node->is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return CS_OK;
}

static cs_status open_container(builder *builder, const yaml_event_t *event, cs_yaml_kind kind, bool is_decorated)
{
    cs_yaml_node *node;

    if (is_decorated)
        return refuse_event(builder, event, "found an anchor or tag, expected a plain value");
    if (wants_key(builder))
        return refuse_event(builder, event, "found a list or mapping as a key, expected a name");
    if (++builder->depth > CS_YAML_DEPTH_MAX)
        return cs_fail(CS_INVALID, "%s:%zu:%zu: found nesting deeper than %d, expected at most that",
                       builder->document->source, event->start_mark.line + 1, event->start_mark.column + 1,
                       CS_YAML_DEPTH_MAX);
    CS_TRY(add_node(builder, event, kind, &node));
    builder->open = node;
    return CS_OK;
}

static int compare_keys(const void *a, const void *b)
{
    const cs_yaml_node *one = *(const cs_yaml_node *const *)a;
    const cs_yaml_node *other = *(const cs_yaml_node *const *)b;
    int order = strcmp(one->key, other->key);

    return order ? order : (one->index < other->index ? -1 : 1);
}

/* By sorting, because the number of keys is the writer's choice. */
static cs_status check_duplicates(const cs_yaml_node *mapping)
{
    const cs_yaml_node **sorted;
    size_t filled = 0;

    if (mapping->count < 2)
        return CS_OK;
    sorted = cs_arena_alloc(mapping->document->tree, mapping->count * sizeof *sorted);
    if (!sorted)
        return cs_fail(CS_EXHAUSTED, "%s: needs more memory than a document may", mapping->document->source);
    for (const cs_yaml_node *child = mapping->first; child; child = child->next)
        sorted[filled++] = child;
    qsort(sorted, filled, sizeof *sorted, compare_keys);
    for (size_t i = 1; i < filled; i++) {
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0) {
            char found[FOUND_BYTES], sentence[2 * FOUND_BYTES];
            describe_text(found, sorted[i]->key, "\"");
            snprintf(sentence, sizeof sentence, "found the key %s again, expected it once (line %zu)", found,
                     sorted[i - 1]->key_line);
            return fail_at(mapping, sorted[i]->key_line, sorted[i]->key_column, sentence);
        }
    }
    return CS_OK;
}

static cs_status close_container(builder *builder)
{
    cs_yaml_node *closed = builder->open;

    if (closed->kind == CS_YAML_MAPPING)
        CS_TRY(check_duplicates(closed));
    builder->open = (cs_yaml_node *)closed->parent;
    builder->depth--;
    return CS_OK;
}

static cs_status add_event(builder *builder, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (builder->document->root)
            return refuse_event(builder, event, "found a second document, expected one");
        if (event->data.document_start.version_directive ||
            event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
            return refuse_event(builder, event, "found a YAML directive, expected none");
        return CS_OK;
    case YAML_ALIAS_EVENT:
        return refuse_event(builder, event, "found an alias, expected a plain value");
    case YAML_SCALAR_EVENT:
        return add_scalar(builder, event);
    case YAML_SEQUENCE_START_EVENT:
        return open_container(builder, event, CS_YAML_LIST,
                              event->data.sequence_start.anchor || event->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return open_container(builder, event, CS_YAML_MAPPING,
                              event->data.mapping_start.anchor || event->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_container(builder);
    default:
        return CS_OK; /* the borders of the stream and of the one document */
    }
}

static cs_status build(yaml_parser_t *parser, builder *builder)
{
    bool is_at_end = false;

    while (!is_at_end) {
        yaml_event_t event;
        cs_status status;
        if (!yaml_parser_parse(parser, &event))
            return refuse_syntax(builder->document->source, parser);
        is_at_end = event.type == YAML_STREAM_END_EVENT;
        status = add_event(builder, &event);
        yaml_event_delete(&event);
        CS_TRY(status);
    }
    return CS_OK;
}

cs_status cs_yaml_read(cs_bytes yaml, size_t max_bytes, const char *source, cs_arena *keep, cs_yaml_document *ret)
{
    builder builder = {.document = ret};
    yaml_parser_t parser;
    cs_status status;

    *ret = (cs_yaml_document){.source = source, .keep = keep};
    if (yaml.size > max_bytes)
        return cs_fail(CS_INVALID, "%s: found %zu bytes, expected at most %zu", source, yaml.size, max_bytes);
    if (!yaml_parser_initialize(&parser))
        return cs_fail(CS_EXHAUSTED, "%s: no memory to read it", source);
    ret->tree = cs_arena_new(TREE_BUDGET_BYTES);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, yaml.size ? yaml.data : (const unsigned char *)"", yaml.size);
    status = build(&parser, &builder);
    yaml_parser_delete(&parser);
    CS_TRY(status);
    if (!ret->root)
        return cs_fail(CS_INVALID, "%s:1:1: found nothing, expected a mapping", source);
    if (ret->root->kind != CS_YAML_MAPPING)
        return cs_yaml_refuse(ret->root, "a mapping");
    return CS_OK;
}

void cs_yaml_document_clear(cs_yaml_document *document)
{
    cs_arena_free(document->tree);
    document->tree = NULL;
    document->root = NULL;
}

/* ---- tables of keys ---- */

#define KEY_BYTES 32 /* longer words are nowhere near a key */

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[KEY_BYTES + 1];
    size_t columns = strlen(b);

    if (strlen(a) > KEY_BYTES || columns > KEY_BYTES)
        return SIZE_MAX;
    for (size_t j = 0; j <= columns; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = CS_MIN(change, CS_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[columns];
}

static cs_status refuse_key(const cs_yaml_node *node, const cs_yaml_key *table)
{
    CS_AUTO(cs_buffer) sentence = CS_BUFFER_EMPTY;
    const char *nearest = NULL;
    size_t best = CS_MAX((size_t)2, strlen(node->key) / 2) + 1;
    char found[FOUND_BYTES];

    describe_text(found, node->key, "\"");
    cs_buffer_printf(&sentence, "found the key %s, expected ", found);
    for (const cs_yaml_key *key = table; key->name; key++) {
        size_t distance = edit_distance(node->key, key->name);
        if (distance < best) {
            best = distance;
            nearest = key->name;
        }
        cs_buffer_printf(&sentence, "%s%s", key == table ? "" : key[1].name ? ", " : " or ", key->name);
    }
    if (nearest)
        cs_buffer_printf(&sentence, "; the nearest is '%s'", nearest);
    return fail_at(node->parent, node->key_line, node->key_column, cs_buffer_text(&sentence));
}

cs_status cs_yaml_walk(const cs_yaml_node *node, const cs_yaml_key *table, void *target)
{
    uint64_t seen = 0;

    if (node->kind != CS_YAML_MAPPING)
        return cs_yaml_refuse(node, "a mapping");
    for (const cs_yaml_node *child = node->first; child; child = child->next) {
        const cs_yaml_key *key = table;
        while (key->name && strcmp(key->name, child->key) != 0)
            key++;
        if (!key->name)
            return refuse_key(child, table);
        seen |= UINT64_C(1) << (key - table);
        CS_TRY(key->read(child, key, (char *)target + key->offset));
    }
    for (const cs_yaml_key *key = table; key->name; key++) {
        if (key->is_required && !(seen & (UINT64_C(1) << (key - table))))
            return cs_yaml_fail(node, "the key '%s' is missing", key->name);
    }
    return CS_OK;
}

cs_status cs_yaml_mapping(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    return cs_yaml_walk(node, key->table, field);
}

const cs_yaml_node *cs_yaml_find(const cs_yaml_node *node, const char *path)
{
    while (*path) {
        size_t size = strcspn(path, ".");
        const cs_yaml_node *child = node->first;
        while (child && !(child->key && strlen(child->key) == size && memcmp(child->key, path, size) == 0))
            child = child->next;
        if (!child)
            return node;
        node = child;
        path += size + (path[size] == '.');
    }
    return node;
}

cs_status cs_yaml_keep(const cs_yaml_node *node, size_t count, size_t item_size, void **ret)
{
    size_t size;

    *ret = NULL;
    if (!__builtin_mul_overflow(count, item_size, &size))
        *ret = cs_arena_alloc(node->document->keep, size ? size : 1);
    if (!*ret)
        return cs_fail(CS_EXHAUSTED, "%s: needs more memory than a document may", node->document->source);
    return CS_OK;
}

/* ---- texts ---- */

bool cs_yaml_is(const cs_yaml_node *node, const char *text)
{
    return node->kind == CS_YAML_SCALAR && strcmp(node->text, text) == 0;
}

static cs_status keep_text(const cs_yaml_node *node, char **ret)
{
    *ret = cs_arena_strdup(node->document->keep, node->text);
    if (!*ret)
        return cs_fail(CS_EXHAUSTED, "%s: needs more memory than a document may", node->document->source);
    return CS_OK;
}

cs_status cs_yaml_text(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    (void)key;
    if (node->kind != CS_YAML_SCALAR || is_nothing(node) || node->size == 0)
        return cs_yaml_refuse(node, "a text");
    if (node->size > CS_YAML_TEXT_MAX)
        return cs_yaml_refuse(node, "a text of at most %d bytes", CS_YAML_TEXT_MAX);
    for (const char *c = node->text; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return cs_yaml_refuse(node, "a text without control characters");
    }
    return keep_text(node, field);
}

cs_status cs_yaml_name(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

    (void)key;
    if (node->kind != CS_YAML_SCALAR || is_nothing(node) || node->size == 0 || node->size > CS_YAML_NAME_MAX ||
        strspn(node->text, letters) != node->size || node->text[0] == '-' || node->text[node->size - 1] == '-')
        return cs_yaml_refuse(node, "a name of a-z, 0-9 and '-' inside, at most %d characters", CS_YAML_NAME_MAX);
    return keep_text(node, field);
}

cs_status cs_yaml_identifier(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    (void)key;
    if (node->kind != CS_YAML_SCALAR || is_nothing(node) || node->size == 0 || node->size > CS_YAML_NAME_MAX ||
        strspn(node->text, letters) != node->size || strchr("._-", node->text[0]))
        return cs_yaml_refuse(node, "letters, digits, '.', '_' and '-', a letter or digit first, at most %d characters",
                              CS_YAML_NAME_MAX);
    return keep_text(node, field);
}

/* Decimal digits only: no sign, no leading zero, no quotes. */
static bool parse_unsigned(const char *text, size_t size, uint64_t *ret)
{
    uint64_t value = 0;

    if (size == 0 || size > 20 || (text[0] == '0' && size > 1))
        return false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    }
    *ret = value;
    return true;
}

cs_status cs_yaml_host_port(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    const char *colon = node->kind == CS_YAML_SCALAR ? strrchr(node->text, ':') : NULL;
    uint64_t port;

    (void)key;
    if (!colon || colon == node->text || node->size > CS_YAML_TEXT_MAX ||
        strcspn(node->text, " \t\r\n/@") != node->size || !parse_unsigned(colon + 1, strlen(colon + 1), &port) ||
        port == 0 || port > UINT16_MAX)
        return cs_yaml_refuse(node, "host:port, such as coordinator.example.org:8443");
    if (node->text[0] == '[' ? colon[-1] != ']' : memchr(node->text, ':', (size_t)(colon - node->text)) != NULL)
        return cs_yaml_refuse(node, "host:port, an IPv6 address in brackets");
    return keep_text(node, field);
}

cs_status cs_yaml_loopback(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    struct sockaddr_storage address;
    socklen_t size = 0;

    (void)key;
    if (node->kind != CS_YAML_SCALAR || cs_loopback_parse(node->text, &address, &size) != CS_OK)
        return cs_yaml_refuse(node, "an address of this machine alone, such as 127.0.0.1:9464");
    return keep_text(node, field);
}

/* ---- numbers ---- */

static cs_status read_unsigned(const cs_yaml_node *node, uint64_t low, uint64_t high, uint64_t *ret)
{
    if (node->kind != CS_YAML_SCALAR || !node->is_plain || !parse_unsigned(node->text, node->size, ret) || *ret < low ||
        *ret > high)
        return cs_yaml_refuse(node, "a whole number, %llu … %llu", (unsigned long long)low, (unsigned long long)high);
    return CS_OK;
}

cs_status cs_yaml_u16(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    uint64_t value;

    CS_TRY(read_unsigned(node, key->low, key->high ? key->high : UINT16_MAX, &value));
    *(uint16_t *)field = (uint16_t)value;
    return CS_OK;
}

cs_status cs_yaml_u32(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    uint64_t value;

    CS_TRY(read_unsigned(node, key->low, key->high ? key->high : UINT32_MAX, &value));
    *(uint32_t *)field = (uint32_t)value;
    return CS_OK;
}

cs_status cs_yaml_u64(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    return read_unsigned(node, key->low, key->high ? key->high : UINT64_MAX, field);
}

cs_status cs_yaml_size(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    uint64_t high = key->high ? key->high : INT64_MAX;
    size_t digits = node->kind == CS_YAML_SCALAR ? strspn(node->text, "0123456789") : 0;
    uint64_t count = 0;

    if (digits && parse_unsigned(node->text, digits, &count)) {
        for (size_t i = 0; i < CS_COUNT(units); i++) {
            if (strcmp(node->text + digits, units[i].unit) == 0 && count <= high >> units[i].shift &&
                count << units[i].shift >= key->low) {
                *(uint64_t *)field = count << units[i].shift;
                return CS_OK;
            }
        }
    }
    return cs_yaml_refuse(node, "a size such as 512MiB or 1GiB");
}

cs_status cs_yaml_duration(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    int64_t ms = 0;

    if (node->kind != CS_YAML_SCALAR || cs_duration_parse(node->text, "duration", &ms) != CS_OK)
        return cs_yaml_refuse(node, "a duration such as 90s, 10m, 24h or 7d");
    if (ms < (int64_t)key->low || ms > (int64_t)key->high)
        return cs_yaml_refuse(node, "a duration of %llu s … %llu s", (unsigned long long)(key->low / 1000),
                              (unsigned long long)(key->high / 1000));
    *(int64_t *)field = ms;
    return CS_OK;
}

cs_status cs_yaml_bool(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    (void)key;
    if (!node->is_plain || !(cs_yaml_is(node, "true") || cs_yaml_is(node, "false")))
        return cs_yaml_refuse(node, "true or false");
    *(bool *)field = cs_yaml_is(node, "true");
    return CS_OK;
}

cs_status cs_yaml_real(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    char *end = NULL;
    double value = 0;

    (void)key;
    if (node->kind == CS_YAML_SCALAR && node->is_plain && node->size > 0 && node->size <= 64 &&
        strspn(node->text, "+-.0123456789eE") == node->size) /* strtod alone takes nan, inf and hexadecimal too */
        value = strtod(node->text, &end);
    if (!end || end == node->text || *end)
        return cs_yaml_refuse(node, "a number");
    if (!isfinite(value))
        return cs_yaml_refuse(node, "a finite number");
    *(double *)field = value;
    return CS_OK;
}

cs_status cs_yaml_positive(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    double value;

    CS_TRY(cs_yaml_real(node, key, &value));
    if (!(value > 0))
        return cs_yaml_refuse(node, "a number above 0");
    *(double *)field = value;
    return CS_OK;
}

cs_status cs_yaml_fraction(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    double value;

    CS_TRY(cs_yaml_real(node, key, &value));
    if (!(value >= 0 && value <= 1))
        return cs_yaml_refuse(node, "a number, 0 … 1");
    *(double *)field = value;
    return CS_OK;
}

cs_status cs_yaml_reals(const cs_yaml_node *node, size_t low, size_t high, double **ret, size_t *ret_count)
{
    void *values;

    CS_TRY(cs_yaml_expect_list(node, low, high));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(double), &values));
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(cs_yaml_real(item, NULL, (double *)values + item->index));
    *ret = values;
    *ret_count = node->count;
    return CS_OK;
}

/* ---- words and lists ---- */

static cs_status read_word(const cs_yaml_node *node, const cs_yaml_word *words, unsigned *ret)
{
    CS_AUTO(cs_buffer) list = CS_BUFFER_EMPTY;

    for (const cs_yaml_word *word = words; word->text; word++) {
        if (cs_yaml_is(node, word->text)) {
            *ret = word->value;
            return CS_OK;
        }
        cs_buffer_printf(&list, "%s%s", word == words ? "" : word[1].text ? ", " : " or ", word->text);
    }
    return cs_yaml_refuse(node, "%s", cs_buffer_text(&list));
}

cs_status cs_yaml_choice(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    unsigned value;

    CS_TRY(read_word(node, key->words, &value));
    memcpy(field, &value, sizeof value); /* the field may be any of the enums, all of them unsigned int */
    return CS_OK;
}

cs_status cs_yaml_choices(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    unsigned bits = 0;

    CS_TRY(cs_yaml_expect_list(node, key->low, CS_YAML_LIST_MAX));
    for (const cs_yaml_node *item = node->first; item; item = item->next) {
        unsigned value;
        CS_TRY(read_word(item, key->words, &value));
        if (bits & value)
            return cs_yaml_refuse(item, "each word once");
        bits |= value;
    }
    *(unsigned *)field = bits;
    return CS_OK;
}

cs_status cs_yaml_expect_list(const cs_yaml_node *node, size_t low, size_t high)
{
    if (node->kind != CS_YAML_LIST || node->count < low || node->count > high)
        return cs_yaml_refuse(node, "a list of %zu … %zu", low, high);
    return CS_OK;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static cs_status check_names_differ(const cs_yaml_node *node, const cs_names *names)
{
    void *memory;

    CS_TRY(cs_yaml_keep(node, names->count, sizeof(char *), &memory));
    char **sorted = memory;
    for (size_t i = 0; i < names->count; i++)
        sorted[i] = names->items[i];
    qsort(sorted, names->count, sizeof(char *), compare_texts);
    for (size_t i = 1; i < names->count; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0) {
            char found[FOUND_BYTES];
            describe_text(found, sorted[i], "'");
            return cs_yaml_fail(node, "found %s twice, expected each once", found);
        }
    }
    return CS_OK;
}

static cs_status read_names(const cs_yaml_node *node, const cs_yaml_key *key, cs_names *ret,
                            cs_status (*read)(const cs_yaml_node *, const cs_yaml_key *, void *))
{
    cs_names names = {0};
    void *items;

    CS_TRY(cs_yaml_expect_list(node, key ? key->low : 0, CS_YAML_LIST_MAX));
    CS_TRY(cs_yaml_keep(node, node->count, sizeof(char *), &items));
    names = (cs_names){.items = items, .count = node->count};
    for (const cs_yaml_node *item = node->first; item; item = item->next)
        CS_TRY(read(item, NULL, &names.items[item->index]));
    CS_TRY(check_names_differ(node, &names));
    *ret = names;
    return CS_OK;
}

cs_status cs_yaml_texts(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    return read_names(node, key, field, cs_yaml_text);
}

cs_status cs_yaml_names(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    return read_names(node, key, field, cs_yaml_name);
}

cs_status cs_yaml_identifiers(const cs_yaml_node *node, const cs_yaml_key *key, void *field)
{
    return read_names(node, key, field, cs_yaml_identifier);
}
