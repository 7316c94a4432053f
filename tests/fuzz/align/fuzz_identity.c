/* Any bytes as the fields of a person: what comes out is canonical, and canonical text is not changed again. */
#include "client/align/identity.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static cs_alignment_key keys[] = {
        {.parts = {CS_PART_GIVEN, CS_PART_FAMILY, CS_PART_BIRTH_DATE}, .parts_count = 3},
        {.parts = {CS_PART_GIVEN_PHONETIC, CS_PART_FAMILY_PHONETIC, CS_PART_BIRTH_YEAR}, .parts_count = 3},
        {.parts = {CS_PART_GIVEN_INITIAL, CS_PART_NAMES, CS_PART_SEX}, .parts_count = 3},
        {.parts = {CS_PART_POSTCODE, CS_PART_NATIONAL_ID}, .parts_count = 2},
    };
    static char study[] = "fuzz";
    const cs_alignment alignment = {.study = study,
                                    .keys = keys,
                                    .keys_count = CS_COUNT(keys),
                                    .phonetic = size % 2 ? CS_PHONETIC_COLOGNE : CS_PHONETIC_SOUNDEX};
    char text[4096 + 1] = {0};
    cs_identity_text person = {0}, again = {0};
    cs_identity identity, repeated;
    uint8_t found[CS_COUNT(keys)][CS_IDENTITY_KEY_BYTES];

    if (size == 0 || size > 4096)
        return 0;
    memcpy(text, data + 1, size - 1);
    char *rest = text;
    for (cs_identity_field field = 0; field < CS_FIELDS; field++)
        person.fields[field] = strsep(&rest, "\n");
    cs_identity_normalize(&person, (cs_date_order)(data[0] % 3), &identity);
    cs_identity_keys(&alignment, &identity, found);
    for (cs_identity_field field = 0; field < CS_FIELDS; field++)
        again.fields[field] = identity.fields[field];
    cs_identity_normalize(&again, CS_DATE_YMD, &repeated);
    assert(repeated.unreadable == 0);
    for (cs_identity_field field = 0; field < CS_FIELDS; field++)
        assert(strcmp(repeated.fields[field], identity.fields[field]) == 0);
    return 0;
}
