"""Words around numbers that matter for their value: currencies, and words that multiply.

They come from CLDR in all its languages (its compact formats and its currencies), plus a few that people also write.
``python -m tests.differential numbers`` compares them with CLDR. From three letters on, case does not matter.
"""

import re
import unicodedata
from typing import Final

# Words that multiply the number before them, without those that nearly everywhere are units: "25 min", "5 mile".
_MULTIPLIERS: Final = frozenset(
    """
k K M MM B b T Cr BN bN Mm MD MLN hundred thousands millions billions dozen crore crores lakhs lac lacs grand
Bi Bn MM MN MR Md Mn Mr NT TN Tn Tr afe alaf bhillean bhilliún bi bil bilhão bilhãu bilhões bilijon bilijona bilijoni
bilijonov bilijun bilijuna bilioi bilion biliona bilionaj bilioni bilionow bilionoù bilions bilionu biliony bilionów
bilionů biliun biliuna biliuni biliuns biliwn bilião biliãu bilió bilión bilióna biliónov bilióny biliões bilj biljoen
biljon biljona biljonat biljoner biljoon biljoona biljoonaa biljovdna biljovdnat biljovn bill billean billeanan
billion billionar billionen billioner billiones billions billioon billioone billioun billiounen billió billión
billiónir billiún billjuhn billjón billjónir billones billón billóns bilyan bilyon bilíɔ̀nù bilíọ̀nù bin bion bió bln
bn bíliọn dausend dousend dsd dt dtrilliún duháhat duhát duiliono duilionoj duisend duizend düüsen ezer hezar hilj
hiljada hiljade hjar hoz hozar imelyaṛen imelyunen inkulungwane isigidi isigidintathu itrilyunen jt juta kM kcr kilu
kotti kun lak lakh lcr libo mM ma mano mbilliún md melyar melyun mhillean mhilliún mhìle mhíle mia mie migghiaru
mii mijë mil mila miler milers milhão milhãu milhões miliad miliar miliard miliarda miliarde miliardi miliardo
miliardoj miliardow miliardu miliardum miliardy miliardów miliardźe miliarg miliarźe milies milijard milijarda
milijardai milijardas milijarde milijardi milijardo milijardų milijon milijona milijonai milijonas milijone milijoni
milijono milijonov milijonų milijun milijuna milio milioane milioi milion miliona milionaj milione miliones milioni
miliono milionoj milionow milionoù milions milionu miliony milionów milionů miliun miliuna miliuni miliuns miliwn
miliárd miliãu milió milión milióna miliónov milióny milj miljaard miljard miljarder miljardi miljardia miljardit
miljards miljardu miljoen miljon miljona miljonat miljoner miljoni miljonit miljons miljonu miljoon miljoona miljoonaa
miljovn miljárda miljárdat mill millar millares mille millean milleanan milles millia milliard milliardar milliarde
milliarden milliarder milliardes milliardir milliardo milliardos milliards milliardu millier million millionar
millione millionen millioner milliones millions millioon millioone millioun milliounen milliárd millió millión
milliónir milliún milljard milljarde milljarðar milljarður milljuhne milljón milljónir millones millón millóns milyan
milyar milyard milyon ming mio mioin mion miu mió mjd mld mlg mljrd mln mlr mlrd mn mrd mìg mìgia mìle mìltean míle
míliọn mílíɔ̀nù mílíọ̀nù müň nghìn nikh nikhorv obz piliona rb ribu rèbu sezigidi tausend taúzan td thousand thrillean
thrilliún tiliona tiri tiriliãu tiriliɔ̀nù tiriliọ̀nù tirillón tirilyan tis tisoč tisuća tisuće tisíc tisíca tisíce tn
tril trilhão trilhões trilijonai trilijonas trilijono trilijonų trilioane trilion triliun triliwn triliɔn trilj
triljon triljoni triljonit triljons triljonu trillean trilleanan trillion trilliún trilyon trilyun trion triệu trln
tríliọn tsd tsg tuh tuhat tuhatta tuhháát tusen tusind tuusig tys tysac tysiąc tysiąca tysiące tysięcy tús túsund
tûzen tūkst tūkstantis tūkstančiai tūkstančio tūkstančių tūkstotis tūkstoši tūkstošu tỷ umelyaṛ umilyun utrilyun
viliad viliadoù viliard viliardoù wagim wagimen yuta È èwu þ þúsund ɛgbɛ̀rún ẹgbẹ̀rún 𞤁 𞤁𞤶 𞤓 𞤚 𞤣𞤵𞤦𞤵𞤲𞤫𞤪𞤫 𞤣𞤵𞤶𞤵𞤲𞤫𞤪𞤫
𞤵𞤶𞤵𞤲𞤫𞤪𞤫 𞤼𞤵𞤶𞤵𞤲𞤫𞤪𞤫 آلاف ألف ارب بلين بيليون ترلن ترليون تريلليون تريليون تریلیون تىرىليون جوتا ريبو لاکھ ملايين ملرد ملن
مليار ملين مليون مىليارد مىليون مىڭ ميلليارد ميلليون میلیارد میلیون هزار هزارمیلیارد ٹریلین ٽرلين کروڑ کھرب ھزار ہزار
հազար հզր միլիարդ միլիոն մլն մլրդ տրիլիոն տրլն কঃ কো কোঃ কোটি নিঃ নিযুত পঃ পৰাৰ্দ্ধ লা লাখ শঃ শত হা হাজার হাজাৰ ᎢᏯᎦᏴᎵ
ᎢᏯᏔᎳᏗᏅᏛ ᎢᏯᏦᎠᏗᏅᏛ ᎢᏳᏆᏗᏅᏛ 万 万亿 京 亿 億 兆 千 萬 ИН М Т бил билион билиона билиони илј илјада илјади их мең ми мил милиард
милиарда милион милиона милиони милијарда милијарде милијарди миллиард миллиарда миллиардов миллион миллиона миллионов
милј минг миң млд млн млрд мың мянга мільйон мільйона мільйони мільйонів мільярд мільярда мільярдаў мільярди мільярды
мільярдів мільён мільёна мільёнаў мільёны мј мөл мөлүйүөн наяд пин сая тис тисяч тисяча тисячі трилион трилиона
триллион триллиона триллионов трильйон трильйона трильйони трильйонів трлн трыльён трыльёна трыльёнаў трыльёны тыс
тысяч тысяча тысячаў тысячи тысячы тыһ тыһыынча тэрбум хил хиляди хиљ хиљада хиљаде эзар ҳазор ҳзр अ अब्ज अरब एम क
करोड करोड़ के कोटी ख खरब खर्व ट्रिलियन ति त्रिलियन दशलक्ष निजुत नील पद्म बि बिलियन रोजा लख लाख शंख ह हज़ार हजार ሚ ሚሊዮን
ሚልዮን ሺ ሽ ሽሕ ቢ ቢሊዮን ቢልዮን ት ትሪሊዮን ትሪልዮን ათ ათასი მილიარდი მილიონი მლნ მლრ მლრდ ტრილიონი ტრლ δισ δισεκατομμύρια
δισεκατομμύριο εκ εκατομμύρια εκατομμύριο τρισ τρισεκατομμύρια τρισεκατομμύριο χιλ χιλιάδα χιλιάδεσ અબજ કરોડ જલધિ
નિખર્વ મહાપદ્મ લાખ શંકુ હજાર ਅਰਬ ਕਰੋੜ ਖਰਬ ਨੀਲ ਲੱਖ ਹਜ਼ਾਰ 만 억 조 천 אלף טריליון מיליארד מיליון ಟ್ರಿ ಟ್ರಿಲಿಯನ್‌ ಬಿ ಬಿಲಿಯನ್
ಮಿ ಮಿಲಿಯನ್ ಸಾ ಸಾವಿರ ទ្រីលាន ប៊ីលាន ពាន់ លាន ຕື້ ພັນ ລລ ລ້ານ ລ້ານລ້ານ ແສນ ആയിരം ട്രില്യൺ ദശലക്ഷം ബില്യൺ ကုဋေ ကောဋိ ဋေ ထ
ထောင် သ သန်း သိန်း သောင်း ଟ୍ରି ନି ନିୟୁତ ବି ଲକ୍ଷକୋଟି ଶହକୋଟି ହ ହଜାର ஆ ஆயிரம் டி டிரில்லியன் பி பில்லியன் மி மில்லியன்
ట్రి ట్రిలియన్ ట్రిలియన్లు బి బిలియన్ బిలియన్లు మి మిలియన్ మిలియన్లు వే వేయి వేలు พัน พันล้าน ล้าน ล้านล้าน หมื่น
หมื่นล้าน แสน แสนล้าน
百 佰 仟 백
""".split()
)
# Words that multiply the number after them.
_MULTIPLIERS_BEFORE: Final = frozenset(
    """
akpe apem biiliyoona bilioni biliyan biliɔn dubu elfu kuma miiliyoona milioni miliyan miliɔn mpem tiriiliyoona
trilioni triliyan triliɔn ɔpepem ɔpepepem ɔpepepepem ကုဋေ ဋေ ට්‍රි ට්‍රිලියන ද දහස බි බිලියන මි මිලියන ཁྲི དུང ཕྱུར
ཕྲག བ བརྒྱ བྱེ འབུམ ཡ ས སྟོང
""".split()
)
# Multiply anywhere in a text, as do multipliers of 6 letters or more.
_ANYWHERE: Final = frozenset({"mio", "mrd", "mln", "mld", "mlrd", "млн", "млрд", "тыс", "тис"})
# Letters and words that are as often a unit as a multiplier: 5 m, 2 L, 6 Bio. With a currency they multiply.
_UNCERTAIN: Final = frozenset("m t L G H J N P D E Y м bio ko".split())
_UNSPACED: Final = tuple(  # in scripts without blanks between words
    word
    for word in _MULTIPLIERS
    if unicodedata.name(word[0]).startswith(("CJK", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR"))
)

_CODES: Final = frozenset(
    """
ADP AED AFA AFN ALK ALL AMD ANG AOA AOK AON AOR ARA ARL ARM ARP ARS ATS AUD AWG AZM AZN BAD BAM BAN BBD BDT BEC BEF
BEL BGL BGM BGN BGO BHD BIF BMD BND BOB BOL BOP BOV BRB BRC BRE BRL BRN BRR BRZ BSD BTN BUK BWP BYB BYN BYR BZD CAD
CDF CHE CHF CHW CLE CLF CLP CNH CNX CNY COP COU CRC CSD CSK CUC CUP CVE CYP CZK DDM DEM DJF DKK DOP DZD ECS ECV EEK
EGP ERN ESA ESB ESP ETB EUR FIM FJD FKP FRF GBP GEK GEL GHC GHS GIP GMD GNF GNS GQE GRD GTQ GWE GWP GYD HKD HNL HRD
HRK HTG HUF IDR IEP ILP ILR ILS INR IQD IRR ISJ ISK ITL JMD JOD JPY KES KGS KHR KMF KPW KRH KRO KRW KWD KYD KZT LAK
LBP LKR LRD LSL LTL LTT LUC LUF LUL LVL LVR LYD MAD MAF MCF MDC MDL MGA MGF MKD MKN MLF MMK MNT MOP MRO MRU MTL MTP
MUR MVP MVR MWK MXN MXP MXV MYR MZE MZM MZN NAD NGN NIC NIO NLG NOK NPR NZD OMR PAB PEI PEN PES PGK PHP PKR PLN PLZ
PTE PYG QAR RHD ROL RON RSD RUB RUR RWF SAR SBD SCR SDD SDG SDP SEK SGD SHP SIT SKK SLE SLL SOS SRD SRG SSP STD STN
SUR SVC SYP SZL THB TJR TJS TMM TMT TND TOP TPE TRL TRY TTD TWD TZS UAH UAK UGS UGX USD USN USS UYI UYP UYU UYW UZS
VEB VED VEF VES VND VNN VUV WST XAF XAG XAU XBA XBB XBC XBD XCD XCG XDR XEU XFO XFU XOF XPD XPF XPT XRE XSU XTS XUA
XXX YDD YER YUD YUM YUN YUR ZAL ZAR ZMK ZMW ZRN ZRZ ZWD ZWG ZWL ZWR
""".split()
)
_NAMES: Final = frozenset(
    """
Afl Ar B/ Br Bs Bs.S CF CFPF Cg D DA DT Db Dkr E Esc F FB FBu FC FCFA FCFP FG Fdj Ft G Gs Ikr K KM Ksh Kz Kč Kčs L LS
Le Lekë Ls M MK MTn NAf Nfk Nkr Nu P Q R RF RM Rf Rp Rs S S/ SR TSh UM UP USh VT Vẽj den din kn kr mk soʻm zł öS أ.م
ج.س ج.م د.أ د.إ د.ب د.ت د.ج د.س د.ع د.ك د.ل د.م ر ر.إ ر.س ر.ع ر.ق ر.ي ریال ل.س ل.ل 元 КМ Кч ЛСЛ ТМТ Тл ден дин зл крб
лв р сом сўм щ.д नेरू ብር Δρχ ל״י රු සිෆ්එ ރ
eur usd gbp chf sek nok dkk pln czk Eur Usd Euro Euros euro euros EURO Dollar Dollars dollar dollars pound pounds peso pesos
yen yuan rupee rupees franc francs Franken krone kroner kronor Kronen forint lei lira TL SFr sFr Fr zl ZL Kc Kr KR rs RS руб рублей
рубля рубль грн тг тенге сум сўм бат đ Đ vnđ VNĐ đồng 円 圆 圓 원 บาท ريال درهم جنيه دينار تومان BTC ETH USDT
""".split()
)
_THREE_DECIMALS: Final = frozenset(
    "BHD IQD JOD KWD LYD OMR TND CLF UYW BTC ETH DT KD BD RO د.ب د.ت د.ع د.ك د.ل د.أ ر.ع".split()
)
_HUNDREDTHS: Final = frozenset("¢ c ct cts cent cents Cent Cents p pence öre øre коп Rappen Groschen".split())
_CURRENCY_LETTERS: Final = 5  # most letters beside a currency sign: US$, CFA₣
_MULTIPLIED: Final = re.compile(
    r"(?:[kKmMTGBb]|[BbMm]n|Mio|Mrd|Tsd|MM)(?P<code>[A-Z]{3})|(?P<start>[A-Z]{3})(?:[kmM]|[bm]n)"
)
_SIGNS_WITH_LETTERS: Final = frozenset({"T$", "M$"})  # Tonga, Malaysia
_BY_SIGN: Final = frozenset("T k K m M mm MM b B bn Bn mn t tn".split())


def is_currency(word: str) -> bool:
    """Whether a word is a currency: a code, a sign or an abbreviation."""
    if word in _CODES or word.rstrip(".") in _NAMES:
        return True
    letters = [sign for sign in word if unicodedata.category(sign) != "Sc"]
    return len(letters) < len(word) and len(letters) <= _CURRENCY_LETTERS


def has_three_decimals(word: str) -> bool:
    """Whether prices in this currency have three or more decimals."""
    return word.rstrip(".") in _THREE_DECIMALS


def is_hundredth(word: str) -> bool:
    """Whether a word means a hundredth of a currency: 99 ¢, 50p."""
    return word in _HUNDREDTHS


def is_multiplied(word: str) -> bool:
    """Whether a word is a currency and a multiplier at once: TEUR, €m."""
    found = _MULTIPLIED.fullmatch(word)
    if found is not None:
        return word not in _CODES and (found["code"] or found["start"]) in _CODES
    return word not in _SIGNS_WITH_LETTERS and bool(_around_sign(word) & _BY_SIGN)


def _around_sign(word: str) -> set[str]:
    """The letters before and after a currency sign."""
    for at, sign in enumerate(word):
        if unicodedata.category(sign) == "Sc":
            return {word[:at], word[at + 1 :].rstrip(".")}
    return set()


def multiplies(word: str) -> bool:
    """Whether a word that follows a number multiplies it."""
    return (word if len(word) <= 2 else word.casefold()) in _MULTIPLIERS or word.startswith(_UNSPACED)


def multiplies_after(word: str) -> bool:
    """Whether a word that precedes a number multiplies it."""
    return word.casefold() in _MULTIPLIERS_BEFORE or (len(word) > 2 and multiplies_anywhere(word))


def multiplies_anywhere(word: str) -> bool:
    """Whether a word multiplies wherever it stands in a text."""
    lowered = word.casefold()
    return lowered in _ANYWHERE or (len(lowered) >= 6 and lowered in _MULTIPLIERS)


def may_multiply(word: str) -> bool:
    """Whether a word that follows a number may be a unit as well as a multiplier."""
    return (word if len(word) <= 2 else word.casefold()) in _UNCERTAIN
