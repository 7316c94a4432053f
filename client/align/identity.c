/* Normalizes identities and derives keys from them. Called by client/data/persons.c in the worker. Unicode by utf8proc:
 * compatibility decomposition (UAX #15), case folding and stripping of marks are its own tables. */
#include "client/align/identity.h"

#include "common/crypto/digest.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#define TEXT_MAX_BYTES 1024 /* of a field as it stands in the table */
/* Code points that one can become; the longest, U+FDFA, becomes 18. */
#define APART_MAX  64
#define YEAR_FIRST 1850
#define YEAR_LAST  2200

/* ---- text ---- */

/* A canonical field that is being written; `is_full` once something did not fit. */
struct writer {
    char *out;
    size_t size;
    bool is_full;
};

static void put(struct writer *writer, const char *bytes, size_t count)
{
    if (writer->size + count >= CS_IDENTITY_FIELD_BYTES)
        writer->is_full = true;
    else
        memcpy(writer->out + writer->size, bytes, count);
    writer->size += writer->is_full ? 0 : count;
}

/* Letters that are letters with a stroke or two letters in one, which Unicode does not take apart. */
static const char *spelt_out(utf8proc_int32_t code_point)
{
    switch (code_point) {
    case 0x00E6: /* æ */
        return "ae";
    case 0x0153: /* œ */
        return "oe";
    case 0x00F8: /* ø */
        return "o";
    case 0x00F0: /* ð */
    case 0x0111: /* đ */
        return "d";
    case 0x00FE: /* þ */
        return "th";
    case 0x0127: /* ħ */
        return "h";
    case 0x0131: /* ı */
        return "i";
    case 0x0142: /* ł */
        return "l";
    case 0x0167: /* ŧ */
        return "t";
    }
    return NULL;
}

/* O'Brien is OBrien. Looked for before a character is taken apart, too: U+00B4 would become a space and a mark. */
static bool is_apostrophe(utf8proc_int32_t code_point)
{
    return code_point == '\'' || code_point == '`' || code_point == 0x00B4 || code_point == 0x02B9 ||
           code_point == 0x02BB || code_point == 0x02BC || code_point == 0x02BD || code_point == 0x2018 ||
           code_point == 0x2019 || code_point == 0x201B || code_point == 0x2032 || code_point == 0xFF07;
}

enum character { IS_WORD, IS_NOTHING, IS_SEPARATOR };

static enum character kind_of(utf8proc_int32_t code_point)
{
    if (is_apostrophe(code_point)) /* of a letter that was taken apart: U+0149 */
        return IS_NOTHING;
    switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
        return IS_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
        return IS_NOTHING;
    default:
        return IS_SEPARATOR;
    }
}

/* Words of letters and digits; `separator` stands between them, 0: nothing does. */
struct words {
    struct writer writer;
    bool is_between; /* a separator came since the last word */
    char separator;
};

static void put_word(struct words *words, const char *bytes, size_t count)
{
    if (words->is_between && words->separator && words->writer.size > 0)
        put(&words->writer, &words->separator, 1);
    words->is_between = false;
    put(&words->writer, bytes, count);
}

static void put_code_point(struct words *words, utf8proc_int32_t code_point)
{
    switch (kind_of(code_point)) {
    case IS_NOTHING:
        break;
    case IS_SEPARATOR:
        words->is_between = true;
        break;
    case IS_WORD: {
        const char *spelling = spelt_out(code_point);
        utf8proc_uint8_t bytes[4];
        if (spelling)
            put_word(words, spelling, strlen(spelling));
        else
            put_word(words, (const char *)bytes, (size_t)utf8proc_encode_char(code_point, bytes));
    }
    }
}

/* The same as put_text does with what is ASCII, without the tables: most of a table is. */
static bool put_ascii(struct words *words, const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c >= 0x80)
            return false;
    }
    for (const char *c = text; *c; c++) {
        const char lower = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9'))
            put_word(words, &lower, 1);
        else if (lower != '\'' && lower != '`')
            words->is_between = true;
    }
    return true;
}

/* Takes each character apart (NFKD) and folds its case, twice: folding can put together what comes apart again. Marks
 * go, so their order does not matter. What remains is toNFKC_Casefold of the Unicode standard (section 3.13) without
 * marks. False: not UTF-8, or too long. */
static bool put_text(struct words *words, const char *text)
{
    const utf8proc_option_t options = UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD;
    const char *end = text + strlen(text);

    if (end - text > TEXT_MAX_BYTES)
        return false;
    if (put_ascii(words, text))
        return !words->writer.is_full;
    while (text < end) {
        utf8proc_int32_t code_point;
        utf8proc_int32_t once[APART_MAX], twice[APART_MAX];
        int boundary = 0;
        const utf8proc_ssize_t size = utf8proc_iterate((const utf8proc_uint8_t *)text, end - text, &code_point);
        if (size <= 0)
            return false;
        text += size;
        if (is_apostrophe(code_point))
            continue;
        const utf8proc_ssize_t count = utf8proc_decompose_char(code_point, once, APART_MAX, options, &boundary);
        for (utf8proc_ssize_t i = 0; i < CS_MIN(count, (utf8proc_ssize_t)APART_MAX); i++) {
            const utf8proc_ssize_t more = utf8proc_decompose_char(once[i], twice, APART_MAX, options, &boundary);
            for (utf8proc_ssize_t j = 0; j < CS_MIN(more, (utf8proc_ssize_t)APART_MAX); j++)
                put_code_point(words, twice[j]);
        }
    }
    return !words->writer.is_full;
}

/* False: cannot be read; `out` is empty then. */
static bool normalize_words(const char *text, char separator, char *out)
{
    struct words words = {.writer = {.out = out}, .separator = separator};
    const bool is_read = put_text(&words, text);

    out[is_read ? words.writer.size : 0] = '\0';
    return is_read;
}

/* ---- dates and sex ---- */

static bool is_leap(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static bool is_date(unsigned year, unsigned month, unsigned day)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    return year >= YEAR_FIRST && year <= YEAR_LAST && month >= 1 && month <= 12 && day >= 1 &&
           day <= days[month - 1] + (unsigned)(month == 2 && is_leap(year));
}

/* Digits in at most three groups: "1980-02-29", "29.2.1980", "19800229"; a time of day behind them is not looked at. A
 * year has four digits: 29.2.80 could be of two centuries. */
static bool normalize_date(const char *text, cs_date_order dates, char *out)
{
    char words[CS_IDENTITY_FIELD_BYTES];
    unsigned numbers[3] = {0};
    size_t digits[3] = {0};
    size_t count = 0;

    if (!normalize_words(text, ' ', words))
        return false;
    for (const char *c = words; *c && count < 3;) {
        const char *start = c;
        for (; *c >= '0' && *c <= '9' && digits[count] < 9; c++, digits[count]++)
            numbers[count] = numbers[count] * 10 + (unsigned)(*c - '0');
        const bool has_time = count == 2 || (count == 0 && digits[0] == 8);
        if (c == start || (*c != ' ' && *c != '\0' && !(has_time && *c == 't')))
            return false;
        c += *c == ' ';
        count++;
        if (has_time)
            break;
    }
    unsigned year = numbers[0], month = numbers[1], day = numbers[2];
    if (digits[0] == 8) { /* as one number, in the site's order */
        const unsigned whole = numbers[0];
        year = dates == CS_DATE_YMD ? whole / 10000 : whole % 10000;
        month = dates == CS_DATE_YMD ? whole / 100 % 100 : dates == CS_DATE_DMY ? whole / 10000 % 100 : whole / 1000000;
        day = dates == CS_DATE_YMD ? whole % 100 : dates == CS_DATE_DMY ? whole / 1000000 : whole / 10000 % 100;
    } else if (count < 3) {
        return false;
    } else if (digits[0] != 4) { /* not ISO 8601 */
        if (dates == CS_DATE_YMD || digits[2] != 4 || digits[0] > 2 || digits[1] > 2)
            return false;
        year = numbers[2];
        month = numbers[dates == CS_DATE_DMY ? 1 : 0];
        day = numbers[dates == CS_DATE_DMY ? 0 : 1];
    } else if (digits[1] > 2 || digits[2] > 2) {
        return false;
    }
    if (!is_date(year, month, day))
        return false;
    snprintf(out, CS_IDENTITY_FIELD_BYTES, "%04u-%02u-%02u", year, month, day);
    return true;
}

/* Words of several languages, and the numbers of ISO/IEC 5218. True with `out` empty: the text says that it is not
 * known. */
static bool normalize_sex(const char *text, char *out)
{
    static const struct {
        const char *word;
        char sex;
    } words[] = {{"f", 'f'},       {"female", 'f'},   {"w", 'f'},          {"weiblich", 'f'}, {"femme", 'f'},
                 {"feminin", 'f'}, {"woman", 'f'},    {"frau", 'f'},       {"2", 'f'},        {"m", 'm'},
                 {"male", 'm'},    {"mannlich", 'm'}, {"maennlich", 'm'},  {"homme", 'm'},    {"masculin", 'm'},
                 {"man", 'm'},     {"mann", 'm'},     {"herr", 'm'},       {"1", 'm'},        {"x", 'x'},
                 {"d", 'x'},       {"divers", 'x'},   {"diverse", 'x'},    {"other", 'x'},    {"nonbinary", 'x'},
                 {"u", '\0'},      {"unknown", '\0'}, {"unbekannt", '\0'}, {"0", '\0'},       {"9", '\0'}};
    char word[CS_IDENTITY_FIELD_BYTES];

    if (!normalize_words(text, '\0', word))
        return false;
    for (size_t i = 0; i < CS_COUNT(words); i++) {
        if (strcmp(words[i].word, word) == 0) {
            out[0] = words[i].sex;
            out[1] = '\0';
            return true;
        }
    }
    return false;
}

void cs_identity_normalize(const cs_identity_text *text, cs_date_order dates, cs_identity *ret)
{
    ret->unreadable = 0;
    for (cs_identity_field field = 0; field < CS_FIELDS; field++) {
        const char *from = text->fields[field];
        char *out = ret->fields[field];
        bool is_read = true;
        out[0] = '\0';
        if (!from || from[strspn(from, " \t")] == '\0')
            continue;
        switch (field) {
        case CS_FIELD_BIRTH_DATE:
            is_read = normalize_date(from, dates, out);
            break;
        case CS_FIELD_SEX:
            is_read = normalize_sex(from, out);
            break;
        case CS_FIELD_POSTCODE:
        case CS_FIELD_NATIONAL_ID:
            is_read = normalize_words(from, '\0', out);
            break;
        case CS_FIELD_GIVEN:
        case CS_FIELD_FAMILY:
        case CS_FIELDS:
            is_read = normalize_words(from, ' ', out);
            break;
        }
        if (!is_read) {
            out[0] = '\0';
            ret->unreadable |= 1U << field;
        }
    }
}

/* ---- phonetic codes ---- */

/* Letters of all words in one; false where one is not a … z. Digits say nothing of how a name sounds. */
static bool letters_of(const char *name, char *out)
{
    size_t count = 0;

    for (; *name; name++) {
        if (*name >= 'a' && *name <= 'z')
            out[count++] = *name;
        else if (*name != ' ' && !(*name >= '0' && *name <= '9'))
            return false;
    }
    out[count] = '\0';
    return count > 0;
}

/* https://www.archives.gov/research/census/soundex: h and w do not part two letters of one code, vowels do. */
static void soundex(const char *letters, char *out)
{
    /*                           abcdefghijklmnopqrstuvwxyz; 0: a vowel, '-': h and w */
    static const char codes[] = "0123012-02245501262301-202";
    char before = codes[letters[0] - 'a'];
    size_t count = 0;

    out[count++] = letters[0];
    for (const char *c = letters + 1; *c && count < 4; c++) {
        const char code = codes[*c - 'a'];
        if (code == '-')
            continue;
        if (code != '0' && code != before)
            out[count++] = code;
        before = code;
    }
    while (count < 4)
        out[count++] = '0';
    out[count] = '\0';
}

/* H. J. Postel, Die Kölner Phonetik, IBM-Nachrichten 19 (1969), 925–931. '-': h, which has no code. The letter x has
 * two. */
static char cologne_code(const char *letters, size_t at)
{
    const char letter = letters[at];
    const char before = at > 0 ? letters[at - 1] : '\0';
    const char after = letters[at + 1];

    switch (letter) {
    case 'h':
        return '-';
    case 'b':
        return '1';
    case 'p':
        return after == 'h' ? '3' : '1';
    case 'd':
    case 't':
        return after != '\0' && strchr("csz", after) ? '8' : '2';
    case 'f':
    case 'v':
    case 'w':
        return '3';
    case 'g':
    case 'k':
    case 'q':
        return '4';
    case 'c':
        if (at == 0)
            return after != '\0' && strchr("ahkloqrux", after) ? '4' : '8';
        if (before == 's' || before == 'z')
            return '8';
        return after != '\0' && strchr("ahkoqux", after) ? '4' : '8';
    case 'x':
        return before != '\0' && strchr("ckq", before) ? '8' : 'x';
    case 'l':
        return '5';
    case 'm':
    case 'n':
        return '6';
    case 'r':
        return '7';
    case 's':
    case 'z':
        return '8';
    default:
        return '0';
    }
}

static void cologne(const char *letters, char *out)
{
    size_t count = 0;
    char before = '\0';

    for (size_t at = 0; letters[at]; at++) {
        const char code = cologne_code(letters, at);
        if (code == '-')
            continue;
        const char pair[] = {code == 'x' ? '4' : code, code == 'x' ? '8' : '\0', '\0'};
        for (const char *c = pair; *c; c++) {
            /* Vowels part equal codes and count at the front only. */
            if (*c != before && (*c != '0' || count == 0) && count + 1 < CS_IDENTITY_FIELD_BYTES)
                out[count++] = *c;
            before = *c;
        }
    }
    out[count] = '\0';
}

void cs_identity_phonetic(cs_phonetic phonetic, const char *name, char *out)
{
    char letters[CS_IDENTITY_FIELD_BYTES];

    if (!letters_of(name, letters))
        memmove(out, name, strlen(name) + 1);
    else if (phonetic == CS_PHONETIC_SOUNDEX)
        soundex(letters, out);
    else
        cologne(letters, out);
}

/* ---- keys ---- */

#define NAMES_BYTES (2 * CS_IDENTITY_FIELD_BYTES)

/* The words of both names in rising order of their bytes. */
static void sort_names(const char *given, const char *family, char out[NAMES_BYTES])
{
    char text[NAMES_BYTES];
    const char *words[NAMES_BYTES / 2];
    size_t count = 0;
    char *rest = NULL;

    snprintf(text, sizeof text, "%s %s", given, family);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        size_t at = count++;
        for (; at > 0 && strcmp(words[at - 1], word) > 0; at--)
            words[at] = words[at - 1];
        words[at] = word;
    }
    out[0] = '\0';
    for (size_t i = 0, size = 0; i < count; i++)
        size += (size_t)snprintf(out + size, NAMES_BYTES - size, "%s%s", i ? " " : "", words[i]);
}

/* "" where the person has no such part. */
static void part_of(const cs_alignment *alignment, const cs_identity *identity, cs_identity_part part,
                    char out[NAMES_BYTES])
{
    const char *field = identity->fields[cs_identity_part_field(part)];

    out[0] = '\0';
    if (field[0] == '\0')
        return;
    switch (part) {
    case CS_PART_GIVEN_PHONETIC:
    case CS_PART_FAMILY_PHONETIC:
        cs_identity_phonetic(alignment->phonetic, field, out);
        break;
    case CS_PART_GIVEN_INITIAL: {
        utf8proc_int32_t first;
        const utf8proc_ssize_t size = utf8proc_iterate((const utf8proc_uint8_t *)field, -1, &first);
        memcpy(out, field, (size_t)size);
        out[size] = '\0';
        break;
    }
    case CS_PART_NAMES:
        if (identity->fields[CS_FIELD_FAMILY][0] != '\0')
            sort_names(field, identity->fields[CS_FIELD_FAMILY], out);
        break;
    case CS_PART_BIRTH_YEAR:
        memcpy(out, field, 4);
        out[4] = '\0';
        break;
    default:
        memcpy(out, field, strlen(field) + 1);
        break;
    }
}

unsigned cs_identity_keys(const cs_alignment *alignment, const cs_identity *identity,
                          uint8_t (*ret)[CS_IDENTITY_KEY_BYTES])
{
    static const char label[] = "consilium-identity-v1";
    uint8_t text[sizeof label + 2 + CS_IDENTITY_FIELD_BYTES + CS_ALIGNMENT_PARTS_MAX * (3 + NAMES_BYTES)];
    unsigned present = 0;

    for (size_t i = 0; i < alignment->keys_count; i++) {
        const cs_alignment_key *key = &alignment->keys[i];
        const size_t study_size = strlen(alignment->study);
        size_t size = sizeof label; /* with its zero byte */
        bool is_whole = true;
        memcpy(text, label, sizeof label);
        text[size++] = (uint8_t)(study_size >> 8);
        text[size++] = (uint8_t)study_size;
        memcpy(text + size, alignment->study, study_size);
        size += study_size;
        for (size_t j = 0; j < key->parts_count && is_whole; j++) {
            char part[NAMES_BYTES];
            part_of(alignment, identity, key->parts[j], part);
            const size_t part_size = strlen(part);
            is_whole = part_size > 0;
            text[size++] = (uint8_t)key->parts[j];
            text[size++] = (uint8_t)(part_size >> 8);
            text[size++] = (uint8_t)part_size;
            memcpy(text + size, part, part_size);
            size += part_size;
        }
        if (!is_whole)
            continue;
        const cs_hash hash = cs_sha256((cs_bytes){.data = text, .size = size});
        memcpy(ret[i], hash.bytes, CS_IDENTITY_KEY_BYTES);
        present |= 1U << i;
    }
    return present;
}
