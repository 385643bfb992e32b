"""A seeded shop of any size with known truth: catalogue, queries, graded judgements and clicks.

The generative model (this project's own; its statistics follow Amazon ESCI's, arXiv 2206.06588):

* **Catalogue.** A fixed tree: department > group > product type (`_CATALOGUE`). Types have Zipf
  shares and own consecutive blocks of item numbers; four consecutive items form a family that
  shares brand and model. An item's further attributes (colour, size, storage, with or without a
  feature, which model it fits ...) are drawn one by one, popular values first.
* **Titles** are noisy: synonyms, any order, attributes left out, filler and mentions of other
  types, typos; some never name their type, only brand and model. `category` is missing for one
  item in ten.
* **Queries** start from an anchor item and ask for its type and 0 to 3 of its attributes (the
  fewer, the more frequent), in words that partly differ from the titles': each list of synonyms
  ends in a wording that only queries use. A few name a model and no type.
* **Grades.** E: every attribute asked for matches. S: same type with one attribute off, or the
  next type of its group with none off. C: an accessory of the asked type, or what the asked
  accessory is for. I: anything else; judged are mostly hard ones: more attributes off, a type that
  shares a word or the group, the same brand or colour elsewhere. Labels are grades with noise.
  Clicks and purchases are binomial in the impressions, at rates set by the true grade.

Item i owns the counters of a Philox stream at i, so that any worker makes any row. Queries of one
type are drawn in batches, and a batch looks for its candidates in a bounded number of families,
taken from the type's own block and from blocks of related types: the cost of a judgement does not
depend on the number of items. Memory holds one chunk, and the query texts of one type (which make
every query distinct).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS, Chunk, Source

# Department, group, then one line per type:
#   names, most usual first, the last used by queries only : attributes : feature : what it is for
_CATALOGUE = """
Electronics
  Phones & Tablets
    smartphone/mobile phone/cell phone : storage colour display : headphone jack :
    tablet/tablet computer/slate pad : storage colour display : pen :
    phone case/phone cover/handset shell : fits colour case_material : kickstand : smartphone
    screen protector/tempered glass/display film : fits pack : applicator : smartphone
    tablet case/tablet cover/slate folio : fits colour case_material : pen holder : tablet
  Computers
    laptop/notebook/portable computer : storage display colour : touch screen :
    computer monitor/display/pc screen : display resolution colour : speakers :
    laptop sleeve/notebook pouch/laptop bag : fits colour case_material : handle : laptop
    wireless mouse/computer mouse/cordless mouse : colour connection : side buttons :
    keyboard/pc keyboard/typing board : colour connection layout : backlight :
    monitor arm/monitor mount/screen bracket : fits colour : clamp : computer monitor
  Sound
    headphones/over ear headphones/headset : colour connection : microphone :
    earbuds/in ear headphones/earphones : colour connection : charging case :
    bluetooth speaker/portable speaker/wireless boombox : colour battery : light :
    earbud tips/ear tips/silicone buds : fits size pack colour : foam : earbuds
  Cameras
    digital camera/compact camera/photo camera : resolution colour storage : flash :
    tripod/camera stand/three leg stand : height colour : ball head : digital camera
    camera bag/camera case/photo pouch : fits colour case_material : rain cover : digital camera
Clothing
  Tops
    t-shirt/tee/crew neck top : audience size colour fabric pattern : pocket :
    dress shirt/button down shirt/formal shirt : audience size colour fabric pattern : pocket :
    hoodie/hooded sweatshirt/pullover : audience size colour fabric : zipper :
    sweater/knit jumper/cardigan : audience size colour fabric pattern : buttons :
  Bottoms
    jeans/denim pants/dungarees : audience size colour fit : holes :
    leggings/yoga pants/tights : audience size colour fabric : pockets :
    shorts/short pants/bermudas : audience size colour fabric pattern : lining :
    leather belt/waist belt/strap belt : audience size colour : buckle : jeans
  Outerwear
    rain jacket/waterproof jacket/raincoat : audience size colour : hood :
    winter coat/parka/puffer : audience size colour : fur :
    winter gloves/mittens/hand warmers : audience size colour fabric : touch fingers :
  Dresses
    summer dress/sundress/frock : audience size colour fabric pattern : sleeves :
    skirt/midi skirt/a-line bottom : size colour fabric pattern : slit :
Shoes
  Athletic
    running shoes/runners/jogging sneakers : audience shoe_size colour : arch support :
    basketball shoes/high top sneakers/court trainers : audience shoe_size colour : ankle strap :
    hiking boots/trail boots/trekking footwear : audience shoe_size colour shoe_material : steel \
toe :
  Casual
    sandals/flip flops/open toe shoes : audience shoe_size colour shoe_material : heel :
    loafers/slip on shoes/moccasins : audience shoe_size colour shoe_material : laces :
    slippers/house shoes/indoor mules : audience shoe_size colour fabric : rubber sole :
  Shoe care
    shoe laces/laces/boot strings : length colour pack : tips : running shoes
    shoe insoles/inserts/footbeds : audience shoe_size pack : gel : running shoes
    shoe polish/leather cream/boot wax : colour pack : brush : loafers
Kitchen
  Cookware
    frying pan/skillet/fry pan : diameter pan_material colour : lid :
    saucepan/cooking pot/milk pan : volume pan_material : lid :
    dutch oven/casserole dish/cocotte : volume colour pan_material : lid :
    pan lid/glass lid/skillet cover : diameter pan_material : steam vent : frying pan
  Appliances
    coffee maker/coffee machine/brewer : colour cups : grinder :
    electric kettle/water boiler/tea kettle : volume colour kettle_material : temperature control :
    blender/smoothie maker/liquidizer : watts colour volume : travel cup :
    toaster/bread toaster/toast machine : slices colour : bagel setting :
    coffee filters/paper filters/brew cones : cups pack : bleach : coffee maker
  Tableware
    coffee mug/mug/drinking cup : volume colour ware_material : handle :
    wine glasses/stemware/goblets : volume pack ware_material : stem :
    dinner plates/plate set/dishes : diameter colour pack ware_material : rim :
    kitchen knife/chef knife/cooks blade : length knife_material : sheath :
    knife sharpener/whetstone/blade grinder : colour knife_material : guide : kitchen knife
Home
  Furniture
    sofa/couch/settee : seats colour upholstery : chaise :
    office chair/desk chair/swivel seat : colour upholstery : armrests :
    dining table/kitchen table/eating table : seats wood colour : extension :
    bookcase/bookshelf/shelving unit : shelves wood colour : doors :
    sofa cover/couch slipcover/settee throw : seats colour fabric : straps : sofa
  Bedding
    bed sheets/sheet set/bed linen : bed_size colour fabric pattern : deep pocket :
    pillow/bed pillow/head cushion : bed_size filling pack : zipper :
    comforter/duvet/quilt : bed_size colour filling pattern : cover :
    duvet cover/comforter cover/quilt case : bed_size colour fabric pattern : zipper : comforter
    pillow case/pillow cover/cushion slip : bed_size colour fabric pack : envelope closure : pillow
  Lighting
    table lamp/desk lamp/bedside light : colour height lamp_material : usb port :
    floor lamp/standing lamp/torchiere : colour height lamp_material : shelf :
    light bulb/led bulb/lamp globe : watts pack light_colour : dimmer : table lamp
    lamp shade/lampshade/light cover : diameter colour fabric : harp : table lamp
  Decor
    wall clock/hanging clock/timepiece : diameter colour wood : numbers :
    picture frame/photo frame/print mount : photo_size colour wood pack : mat :
    area rug/carpet/floor mat : rug_size colour pattern : non slip backing :
Garden
  Tools
    lawn mower/grass cutter/mowing machine : voltage cut_width : grass bag :
    hedge trimmer/hedge cutter/bush clippers : voltage length : extension pole :
    garden hose/water hose/hosepipe : hose_length colour : nozzle :
    hose nozzle/spray nozzle/water gun head : colour pack tool_material : shut off valve : garden \
hose
    mower blade/replacement blade/cutting bar : fits cut_width pack : bolts : lawn mower
  Outdoor living
    patio chair/garden chair/outdoor seat : colour outdoor_material pack : cushion :
    patio umbrella/parasol/sun shade : diameter colour : base :
    gas grill/barbecue/bbq : burners colour : side shelf :
    grill cover/barbecue cover/bbq hood : fits colour : handles : gas grill
    grill brush/barbecue scraper/grate cleaner : length tool_material : wooden handle : gas grill
  Planting
    flower pot/planter/plant container : diameter colour pot_material : drainage hole :
    potting soil/potting mix/compost : weight plants : fertilizer :
    plant stand/flower stand/pot rack : height colour wood : wheels : flower pot
Tools
  Power tools
    cordless drill/drill driver/power drill : voltage watts : battery :
    circular saw/wood saw/round blade cutter : voltage watts cut_width : laser guide :
    orbital sander/palm sander/sanding machine : voltage watts : dust bag :
    drill bits/drill bit set/boring tips : tool_material pack : storage box : cordless drill
    drill battery/battery pack/spare accumulator : fits voltage : charge indicator : cordless drill
  Hand tools
    hammer/claw hammer/nail driver : weight tool_material : magnet :
    screwdriver set/screwdrivers/torx drivers : pack tool_material : rack :
    tape measure/measuring tape/ruler roll : tape_length colour : magnet :
    tool box/tool chest/workshop case : colour tool_material : tray :
  Safety
    work gloves/safety gloves/protective mitts : size glove_material pack : grip :
    safety glasses/protective goggles/eye shield : colour pack : side shields :
    ladder/step ladder/climbing steps : height tool_material : tool shelf :
Beauty
  Hair
    shampoo/hair wash/hair cleanser : volume scent hair : sulfate :
    conditioner/hair conditioner/cream rinse : volume scent hair : silicone :
    hair dryer/blow dryer/hair blower : watts colour : diffuser :
    hair brush/detangling brush/paddle comb : colour brush_material : handle :
  Skin
    face cream/moisturizer/day lotion : weight skin scent : parabens :
    sunscreen/sun cream/sunblock : spf volume skin : oxybenzone :
    body soap/soap bar/hand bar : pack scent skin : palm oil :
    soap dish/soap holder/bar tray : colour bath_material : drain : body soap
  Makeup
    lipstick/lip colour/rouge : shade finish : gluten :
    mascara/lash colour/eyelash paint : shade volume : waterproofing :
    nail polish/nail lacquer/varnish : shade finish : formaldehyde :
    makeup bag/cosmetic bag/toiletry pouch : colour case_material : mirror : lipstick
Grocery
  Drinks
    coffee beans/whole bean coffee/roasted beans : weight roast : caffeine :
    green tea/tea bags/leaf infusion : pack flavour : caffeine :
    protein powder/whey powder/muscle shake : weight flavour : lactose :
    shaker bottle/protein shaker/mixing cup : volume colour : mixing ball : protein powder
  Snacks
    granola bars/snack bars/muesli bites : pack flavour : nuts :
    dark chocolate/chocolate bar/cocoa tablet : weight flavour : sugar :
    potato chips/crisps/salted snack : weight flavour : salt :
    dried fruit/fruit mix/raisin blend : weight fruit : sugar :
  Pantry
    pasta/spaghetti/noodles : weight pasta_shape : gluten :
    peanut butter/nut spread/nut paste : weight texture : sugar :
    olive oil/cooking oil/salad oil : volume oil : glass bottle :
Sports
  Fitness
    yoga mat/exercise mat/gym pad : thickness colour mat_material : carry strap :
    dumbbells/hand weights/free weights : weight colour pack : rack :
    resistance bands/exercise bands/stretch loops : pack colour mat_material : door anchor :
    exercise bike/stationary bike/spin cycle : colour levels : screen :
    bike mat/equipment mat/treadmill pad : thickness mat_material : foam : exercise bike
  Cycling
    mountain bike/trail bike/mtb : wheel_size colour frame_material : suspension :
    bike helmet/cycling helmet/head guard : audience size colour : visor : mountain bike
    bike lock/cycle lock/chain lock : length colour : key : mountain bike
    inner tube/bike tube/tire tube : wheel_size pack : sealant : mountain bike
  Camping
    camping tent/dome tent/shelter : people colour : rain fly :
    sleeping bag/camp bedding/mummy bag : temperature colour filling : hood :
    backpack/rucksack/knapsack : liters colour audience : frame :
    tent pegs/tent stakes/ground spikes : pack length tool_material : pouch : camping tent
    water bottle/drinking flask/canteen : volume colour bottle_material : straw :
Pets
  Dogs
    dog food/kibble/canine feed : weight meat pet_age : grain :
    dog bed/pet bed/puppy mat : pet_size colour fabric : bolster :
    dog leash/dog lead/walking rope : length colour leash_material : padded handle :
    dog collar/pet collar/neck band : pet_size colour leash_material : bell :
    collar tag/dog id tag/name plate : colour tag_material : engraving : dog collar
  Cats
    cat litter/litter sand/kitty granules : weight scent litter : clumping :
    litter box/cat toilet/kitty pan : colour pet_size : lid :
    cat tree/scratching post/climbing tower : height colour : hammock :
    litter scoop/litter shovel/poop scooper : colour tool_material : holder : litter box
  Fish
    aquarium/fish tank/glass tank : gallons shape : light :
    aquarium filter/tank filter/water cleaner : gallons power_source : carbon : aquarium
    fish food/fish flakes/tank feed : weight fish : coloring : aquarium
Toys
  Building
    building blocks/construction bricks/stacking toy : pieces child_age theme : figures :
    wooden train set/toy railway/rail set : pieces child_age : bridge :
    train tracks/rail pieces/track expansion : pieces wood : switches : wooden train set
    puzzle/jigsaw/picture game : pieces theme child_age : poster :
  Play
    doll/baby doll/play figure : height child_age hair_colour : clothes :
    doll clothes/doll outfit/figure wardrobe : height colour pattern : shoes : doll
    board game/family game/tabletop game : players child_age theme : timer :
    remote control car/rc car/radio racer : scale colour voltage : lights :
    plush toy/stuffed animal/cuddly bear : height animal colour : sound :
  Baby
    baby stroller/pushchair/pram : colour frame_material : cup holder :
    stroller cover/rain shield/pram hood : fits colour : window : baby stroller
    diapers/nappies/pampers : diaper_size pack : fragrance :
    baby bottle/feeding bottle/nursing flask : volume pack bottle_material : bpa :
"""

# Attribute: values, most popular first; each lists its wordings as the type names do.
_VALUES = """
colour: black/jet; white/ivory; blue/azure; grey/gray/charcoal; red/crimson; green/emerald; navy/\
dark blue/midnight; pink/rose; brown/chocolate brown; beige/sand/cream
storage: 128gb/128 gb; 256gb/256 gb; 64gb/64 gb; 512gb/512 gb; 1tb/1 tb/1000 gb
display: 15.6 inch/15.6"/15.6in; 13 inch/13"/13in; 24 inch/24"/24in; 27 inch/27"/27in; 10 inch/\
10"/10in
resolution: 1080p/full hd/1920x1080; 4k/ultra hd/2160p; 1440p/qhd/2k; 720p/hd ready
case_material: leather/genuine leather/cowhide; silicone/rubber; nylon/polyester; hard plastic/\
hardshell; felt/wool felt
connection: bluetooth/wireless/cordless; wired/cable/corded; usb c/type c; 2.4 ghz/usb receiver/\
dongle
layout: full size/104 keys/with numpad; compact/tenkeyless/small; ergonomic/split/wrist friendly
battery: 10 hours/10h; 20 hours/20h; 30 hours/30h
height: 50 inch/50"/127 cm; 20 inch/20"/51 cm; 60 inch/60"/152 cm; 12 inch/12"/30 cm; 72 inch/6 \
ft/183 cm
audience: women's/womens/ladies; men's/mens/gents; kids/children's/youth; unisex/adult
size: medium/size m; large/size l; small/size s; x-large/xl/extra large; xx-large/2xl/plus size
shoe_size: size 9/us 9; size 10/us 10; size 8/us 8; size 11/us 11; size 7/us 7; size 10 wide/us \
10w/10 extra wide
fabric: cotton/100% cotton/pure cotton; polyester/microfiber; linen/flax linen; wool/merino/\
lambswool; fleece/sherpa/fluffy
pattern: solid/plain; striped/stripes/pinstripe; floral/flower print/flowery; plaid/checkered/\
tartan
fit: slim fit/skinny/tight; straight leg/regular fit; relaxed fit/loose/baggy; bootcut/flared
shoe_material: leather/genuine leather/cowhide; suede/nubuck; mesh/knit/breathable; vegan leather/\
faux leather/synthetic
length: 6 inch/6"/15 cm; 8 inch/8"/20 cm; 10 inch/10"/25 cm; 48 inch/4 ft/120 cm; 72 inch/6 ft/\
180 cm
diameter: 10 inch/10"/26 cm; 12 inch/12"/30 cm; 8 inch/8"/20 cm; 14 inch/14"/36 cm
pan_material: nonstick/non-stick/teflon; stainless steel/inox/steel; cast iron/iron; ceramic/\
stone coated; copper/hammered copper
kettle_material: stainless steel/inox/steel; glass/borosilicate; plastic/bpa free plastic; \
ceramic/porcelain
ware_material: porcelain/china/ceramic; glass/crystal/clear; stoneware/earthenware/pottery; \
melamine/unbreakable/plastic
knife_material: stainless steel/inox/steel; carbon steel/high carbon; ceramic/zirconia; damascus/\
damask
volume: 16 oz/16oz/half liter; 32 oz/32oz/1 liter; 8 oz/8oz/250 ml; 64 oz/64oz/2 liter
cups: 12 cup/12-cup; 4 cup/4-cup; single serve/1 cup/one cup
watts: 1000w/1000 watt; 600w/600 watt; 60w/60 watt; 1500w/1500 watt
slices: 2 slice/two slice; 4 slice/four slice
seats: 3 seater/three seat; 2 seater/loveseat/for two; 4 seater/for four; 6 seater/for six
upholstery: fabric/linen blend/cloth; leather/genuine leather/cowhide; velvet/velour/plush; mesh/\
breathable
wood: oak/oak wood; pine/solid pine; walnut/dark wood; bamboo/sustainable wood; metal/iron/steel
shelves: 5 tier/5 shelf; 3 tier/3 shelf; 4 tier/4 shelf
bed_size: queen/queen size; king/king size; twin/single; full/double
filling: down/goose down/feather; memory foam/foam/viscoelastic; down alternative/synthetic/\
hypoallergenic; cotton/cotton filled
lamp_material: metal/iron/steel; glass/crystal; wood/wooden/rustic; ceramic/porcelain
light_colour: warm white/2700k/soft white; daylight/5000k/cool white; multicolor/rgb/color changing
photo_size: 8x10/8 x 10/a4; 5x7/5 x 7; 4x6/4 x 6/postcard size; 11x14/11 x 14/a3
rug_size: 5x7/5' x 7'/medium; 8x10/8' x 10'/large; 3x5/3' x 5'/small; 2x8/2' x 8'/runner
voltage: 20v/20 volt; 18v/18 volt; 12v/12 volt; 40v/40 volt
cut_width: 16 inch/16"/40 cm; 21 inch/21"/53 cm; 7 inch/7"/18 cm
hose_length: 50 ft/50ft/15 m; 100 ft/100ft/30 m; 25 ft/25ft/8 m
tool_material: steel/carbon steel/metal; aluminum/aluminium/light metal; fiberglass/fibreglass/\
composite; plastic/polymer
outdoor_material: rattan/wicker/woven; aluminum/aluminium/light metal; teak/wood/wooden; plastic/\
resin/polymer
burners: 3 burner/three burner; 2 burner/two burner; 4 burner/four burner
pot_material: ceramic/glazed/porcelain; terracotta/clay/earthenware; plastic/resin/polymer; metal/\
galvanized/zinc
weight: 2 lb/2lb/1 kg; 5 lb/5lb/2 kg; 10 lb/10lb/5 kg; 1 lb/1lb/half kilo; 20 lb/20lb/9 kg
plants: all purpose/universal; cactus/succulents; vegetables/herbs; orchids/orchid mix
pack: 2 pack/pack of 2/two; 4 pack/pack of 4/four; 1 pack/single; 6 pack/pack of 6/half dozen; 12 \
pack/pack of 12/dozen
tape_length: 25 ft/25ft/7.5 m; 16 ft/16ft/5 m; 100 ft/100ft/30 m
glove_material: leather/cowhide; nitrile/latex free/rubber; cotton/knit; kevlar/cut resistant/\
anti cut
scent: lavender/lavande; unscented/fragrance free/odorless; citrus/lemon/orange; vanilla/sweet \
vanilla; rose/floral
hair: dry hair/moisturizing/hydrating; oily hair/clarifying/greasy; curly hair/curls/wavy; color \
treated/dyed hair
brush_material: boar bristle/natural bristle; nylon/plastic; bamboo/wooden/wood
skin: sensitive skin/gentle/hypoallergenic; dry skin/hydrating; oily skin/mattifying/acne; mature \
skin/anti aging/wrinkles
spf: spf 50/50+; spf 30/30+; spf 15/15+
bath_material: ceramic/porcelain; bamboo/wooden/wood; silicone/rubber; stainless steel/inox
shade: red/crimson/scarlet; nude/natural/skin tone; black/noir; pink/rose; plum/burgundy/berry
finish: matte/mat/velvet; glossy/shiny/gloss; shimmer/glitter/sparkle
roast: medium roast/city roast/medium; dark roast/french roast/espresso; light roast/blonde/light
flavour: chocolate/cocoa/choco; vanilla/french vanilla; original/classic/natural; strawberry/\
berry; lemon/citrus; mint/peppermint
fruit: mango/tropical; cranberry/cranberries; apricot/apricots; mixed/assorted/variety
pasta_shape: penne/quills; fusilli/spirals/twists; linguine/flat; elbow/macaroni
texture: creamy/smooth; crunchy/chunky/with pieces
oil: extra virgin/cold pressed/first press; refined/light/mild; infused/flavored/garlic
thickness: 6mm/medium thick; 10mm/extra thick/cushioned; 4mm/thin/travel
mat_material: natural rubber/rubber; tpe/foam; cork/natural cork; latex/elastic
levels: magnetic/silent; belt drive/quiet; air resistance/fan
wheel_size: 26 inch/26"/26er; 29 inch/29"/29er; 20 inch/20"/20er
frame_material: aluminum/aluminium/alloy; steel/hi ten; carbon/carbon fiber/lightweight
people: 4 person/4 man/family; 2 person/2 man/couple; 6 person/6 man/large group; 1 person/solo/\
one man
temperature: 0 degree/winter/cold weather; 20 degree/3 season; 40 degree/summer/warm weather
liters: 30l/30 liter; 50l/50 liter; 20l/20 liter; 70l/70 liter
bottle_material: stainless steel/insulated/metal; glass/borosilicate; plastic/tritan
meat: chicken/poultry; beef/red meat; salmon/fish; lamb/sheep
pet_age: adult/grown; puppy/junior/young; senior/old/aging
pet_size: large/big/l; medium/m; small/little/s; extra large/giant/xl
leash_material: nylon/polyester; leather/genuine leather/cowhide; rope/braided/climbing rope; \
chain/metal
tag_material: stainless steel/inox; brass/gold tone; silicone/silent
litter: clay/bentonite; wood/pine/pellets; silica/crystal; tofu/plant based
gallons: 10 gallon/10 gal/40 l; 20 gallon/20 gal/75 l; 5 gallon/5 gal/20 l; 55 gallon/55 gal/200 l
shape: rectangular/standard; round/bowl; cube/square; corner/bow front
power_source: hang on/hob; submersible/internal; canister/external
fish: tropical fish/tropical; goldfish/koi; betta/fighting fish; bottom feeder/catfish
pieces: 100 piece/100 pcs; 500 piece/500 pcs; 1000 piece/1000 pcs; 50 piece/50 pcs
child_age: ages 3+/toddler/preschool; ages 6+/6 years/grade school; ages 8+/8 years/tween; ages \
1+/1 year/infant
theme: castle/knights/medieval; space/galaxy/rocket; animals/zoo/wildlife; city/town/traffic; \
dinosaur/jurassic/t rex
hair_colour: blonde/fair hair; brunette/brown hair; red hair/ginger
players: 2 players/two player; 4 players/2-4 players/four player; party/6+ players/large group
scale: 1-18/medium scale; 1-10/large scale/big; 1-24/small scale/mini
animal: bear/teddy; dog/puppy; bunny/rabbit; unicorn/horse; cat/kitten
diaper_size: size 3/16-28 lb; size 4/22-37 lb; size 2/12-18 lb; newborn/size 1
"""

_WORDS = """
series: aero/alto/apex/aria/atlas/aura/axis/blaze/bolt/breeze/canyon/cedar/comet/coral/crest/delta/\
drift/echo/edge/ember/flux/forge/fusion/glide/halo/haven/helix/indigo/iris/juno/karma/lark/lumen/\
lyric/maple/meridian/mosaic/nimbus/nova/oasis/onyx/opal/orbit/pearl/pilot/prism/pulse/quest/ridge/\
river/sage/scout/sierra/solo/spark/summit/terra/tide/trail/umbra/vega/vista/wave/zephyr
brand starts: vel/nor/kas/bri/tam/lor/zen/pol/ark/mir/dun/fel/gar/hol/jas/qui
brand ends: mora/dex/tano/via/lux/ton/ridge/well/sen/rio/ford/ley/mark/vik/zo/bay
filler: premium quality/best seller/upgraded version/great gift idea/for everyday use/durable/\
new 2024/perfect gift for mom/birthday present/professional/easy to clean/lightweight/heavy duty/\
modern design/for home and travel/top rated/limited edition/stylish/multipurpose/classic/\
satisfaction guaranteed/long lasting/official/ideal for beginners/eco friendly
query filler: best/cheap/good/sale/new/top rated
"""

_BRANDS_PER_DEPARTMENT = 12
_NEW_BRANDS_PER_DEPARTMENT = 6  # so that neighbouring departments share half of them
_FAMILY = 4  # items of one brand and model
_BRAND, _MODEL, _FEATURE, _FITS = "brand", "model", "feature", "fits"
_WITH, _WITHOUT = 0, 1
_ABSENT = -1  # the item says nothing about the attribute

_BREAKS = ", ", ", ", " - ", " | ", " "

_GRADES = "E", "S", "C", "I"
_E, _S, _C, _I = range(4)
_GRADE_SHARES = (0.5, 0.25, 0.05, 0.2)
_CLICK_RATES = np.array([0.20, 0.08, 0.05, 0.02])
_PURCHASE_RATES = np.array([0.15, 0.06, 0.08, 0.02])

# Philox streams.
_LAYOUT_DRAWS, _FAMILY_DRAWS, _ATTRIBUTE_DRAWS, _TEXT_DRAWS, _QUERY_DRAWS = range(5)
_ATTRIBUTE_WIDTH, _TEXT_WIDTH = 12, 64  # draws per item, multiples of four
_CHUNK = 4096  # items
_QUERY_BATCH = 32  # queries that share a pool of candidates

# What an item's type is to the type that a query asks for; how many families of each kind a pool
# takes, and how readily its items are chosen to be judged.
_OWN, _SUBSTITUTE, _COMPLEMENT, _LOOKALIKE, _NEIGHBOUR, _ELSEWHERE = range(6)
_POOL_FAMILIES = (96, 24, 16, 48, 48, 64)
_READINESS = np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.5])

_TRUTH = {"truth_type": pa.string(), "truth_attributes": pa.list_(pa.string())}
_ITEM_SCHEMA = pa.schema([*RAW_ITEMS, *_TRUTH.items()])
_JUDGEMENT_SCHEMA = pa.schema(
    [
        *(f for f in RAW_JUDGEMENTS if f.name not in ("weight", "split")),
        ("truth_label", pa.string()),
        *_TRUTH.items(),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ProductType:
    number: int
    department: str
    group: str
    names: tuple[str, ...]
    attributes: tuple[str, ...]  # brand, model, feature, then those of `_CATALOGUE`
    feature: str
    purposes: tuple[str, ...]  # names of the types that it is an accessory of
    brands: tuple[int, ...]  # most popular first


@functools.cache
def _product_types() -> tuple[_ProductType, ...]:
    types: list[_ProductType] = []
    departments: list[str] = []
    group = ""
    for line in _CATALOGUE.strip().splitlines():
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            departments.append(line)
        elif depth == 2:
            group = line.strip()
        else:
            names, attributes, feature, purposes = (part.strip() for part in line.split(":"))
            first = (len(departments) - 1) * _NEW_BRANDS_PER_DEPARTMENT
            ranks = (np.arange(_BRANDS_PER_DEPARTMENT) + len(types)) % _BRANDS_PER_DEPARTMENT
            types.append(
                _ProductType(
                    number=len(types),
                    department=departments[-1],
                    group=group,
                    names=tuple(names.split("/")),
                    attributes=(_BRAND, _MODEL, _FEATURE, *attributes.split()),
                    feature=feature,
                    purposes=tuple(filter(None, purposes.split("/"))),
                    brands=tuple(int(first + rank) for rank in ranks),
                )
            )
    return tuple(types)


@functools.cache
def _wordings() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns, per attribute, the wordings of each value, the usual one first."""
    lines = (line.split(": ", 1) for line in _VALUES.strip().splitlines())
    return {
        attribute: tuple(tuple(value.strip().split("/")) for value in values.split(";"))
        for attribute, values in lines
    }


@functools.cache
def _words() -> dict[str, tuple[str, ...]]:
    lines = (line.split(": ") for line in _WORDS.strip().splitlines())
    return {name: tuple(words.split("/")) for name, words in lines}


@functools.cache
def _columns() -> dict[str, int]:
    """Returns the column of each attribute in an array of items' values."""
    return {name: i for i, name in enumerate((_BRAND, _MODEL, _FEATURE, _FITS, *_wordings()))}


@functools.cache
def _relations() -> np.ndarray:
    """Returns what items of one type are to queries for another. `[query's type, item's type]`."""
    types = _product_types()
    relations = np.full((len(types), len(types)), _ELSEWHERE)
    for one, row in zip(types, relations, strict=True):
        words = set(" ".join(one.names).split())
        group = [t for t in types if (t.department, t.group) == (one.department, one.group)]
        peers = [t.number for t in group if bool(t.purposes) == bool(one.purposes)]
        for other in types:
            if one.names[0] in other.purposes or other.names[0] in one.purposes:
                row[other.number] = _COMPLEMENT
            elif other in group or words & set(" ".join(other.names).split()):
                row[other.number] = _LOOKALIKE
            elif other.department == one.department:
                row[other.number] = _NEIGHBOUR
        substitute = peers[(peers.index(one.number) + 1) % len(peers)]
        if row[substitute] == _LOOKALIKE:
            row[substitute] = _SUBSTITUTE
        row[one.number] = _OWN
    return relations


def _fitted(type_: _ProductType) -> _ProductType:
    """Returns what an accessory is for."""
    return next(t for t in _product_types() if t.names[0] == type_.purposes[0])


def _brand_name(brand: int) -> str:
    starts, ends = _words()["brand starts"], _words()["brand ends"]
    return (starts[brand * 7 % 16] + ends[(brand * 11 + brand // 16) % 16]).capitalize()


def _series(type_: _ProductType, brand: int) -> str:
    series = _words()["series"]
    return series[(type_.number * 29 + brand * 17) % len(series)].capitalize()


def _popular(uniform: np.ndarray, values: int) -> np.ndarray:
    """Turns uniform draws into Zipf-like ranks below `values`."""
    shares = 1 / (np.arange(values) + 1.5)
    return np.searchsorted(np.cumsum(shares)[:-1] / shares.sum(), uniform, side="right")


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Splits `total` into whole numbers close to the shares (largest remainder)."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def _pick(choices: Sequence[str], uniform: float) -> str:
    return choices[int(uniform * len(choices))]


def _misspelt(text: str, uniform: float) -> str:
    """Drops, doubles or swaps letters of the longest word, where the draw says."""
    word = max(text.split(), key=len)
    at, how = divmod(int(uniform * 3 * (len(word) - 1)), 3)
    typo = ("", word[at] * 2, word[at : at + 2][::-1])[how]
    return text.replace(word, word[:at] + typo + word[at + (2 if how == 2 else 1) :], 1)


def _title_words(wordings: Sequence[str]) -> Sequence[str]:
    return wordings[:-1] or wordings


def _present(row: np.ndarray) -> dict[str, int]:
    """Returns the attributes that an item has, as names and value numbers."""
    return {name: value for name, value in zip(_columns(), row.tolist(), strict=True) if value >= 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pool:
    items: np.ndarray  # [row]
    values: np.ndarray  # [row, attribute]
    relation: np.ndarray  # [row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Query:
    text: str
    asked: dict[str, int]
    frequency: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedShop:
    """A reader of a shop that does not exist.

    Attributes:
      items: number of items, up to about 1e8.
      queries: number of distinct queries; fewer are made when the items allow no more.
      judgements_per_query: most judgements of a query, on average; a query that few items match
        has fewer, so that the grades keep their shares.
      label_noise: share of the labels that are drawn anew, whatever the truth.
      seed: everything is a function of it.
    """

    items: int = 4000
    queries: int = 2000
    judgements_per_query: int = 16
    label_noise: float = 0.05
    seed: int = 0

    def files(self) -> list[str]:
        """Returns no files: nothing is read."""
        return []

    def read(self) -> Source:
        """Returns the catalogue and the judgements, made while they are read.

        The columns `truth_type` (first name of the product type) and `truth_attributes`
        (`name=value`, usual wording) tell what an item is, or what a query asks for;
        `truth_label` is the grade before noise.
        """
        return Source(
            items=self._item_chunks(),
            judgements=self._judgement_chunks(),
            extras=pa.schema(_TRUTH),
        )

    @functools.cached_property
    def _shares(self) -> np.ndarray:
        """Zipf shares of the product types, in an order that the seed decides. `[type]`."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, _LAYOUT_DRAWS]))
        return 1 / (random.permutation(len(_product_types())) + 5.0) ** 0.9

    @functools.cached_property
    def _family_starts(self) -> np.ndarray:
        """First family of each product type, then the number of families. `[type + 1]`."""
        families = -(-self.items // _FAMILY)
        return np.concatenate([[0], np.cumsum(_apportion(families, self._shares))])

    def _uniforms(self, stream: int, rows: np.ndarray, width: int) -> np.ndarray:
        """Returns the draws of the given rows, float64 `[row, draw]` in [0, 1).

        Row i owns Philox counters `i * width / 4` and on: four draws per counter.
        """
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        raw = [
            np.random.Philox(key=[self.seed, stream])
            .advance(int(run[0]) * (width // 4))
            .random_raw(len(run) * width)
            for run in runs
            if len(run)
        ]
        raw = np.concatenate([np.zeros(0, np.uint64), *raw]).reshape(len(rows), width)
        return (raw >> np.uint64(11)) * 2.0**-53

    def _attributes(self, families: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the items of some families and what they are.

        Args:
          families: int64 `[family]`, ascending.

        Returns:
          Numbers of the items int64 `[item]`, of their types `[item]`, and of the values of their
          attributes `[item, attribute]` in the order of `_columns`.
        """
        items = (families[:, None] * _FAMILY + np.arange(_FAMILY)).ravel()
        types = np.repeat(np.searchsorted(self._family_starts, families, "right") - 1, _FAMILY)
        brand_draws = np.repeat(self._uniforms(_FAMILY_DRAWS, families, 4)[:, 0], _FAMILY)
        draws = self._uniforms(_ATTRIBUTE_DRAWS, items, _ATTRIBUTE_WIDTH)
        values = np.full((len(items), len(_columns())), _ABSENT, np.int64)
        for number in np.unique(types):
            type_, own = _product_types()[number], types == number
            brands = np.array(type_.brands)
            values[own, _columns()[_BRAND]] = brands[_popular(brand_draws[own], len(brands))]
            values[own, _columns()[_MODEL]] = items[own] // _FAMILY
            for draw, attribute in zip(draws[own].T, type_.attributes[2:], strict=False):
                if attribute == _FEATURE:
                    # 40 % with, 30 % without, the others do not say.
                    value = np.where(draw < 0.4, _WITH, np.where(draw < 0.7, _WITHOUT, _ABSENT))
                elif attribute == _FITS:
                    fitted = np.array(_fitted(type_).brands)
                    value = fitted[_popular(draw, len(fitted))]
                else:
                    value = _popular(draw, len(_wordings()[attribute]))
                values[own, _columns()[attribute]] = value
        exists = items < self.items
        return items[exists], types[exists], values[exists]

    def _model_name(self, type_: _ProductType, brand: int, family: int) -> str:
        prime = next(p for p in (9973, 999983, 99999989) if p * _FAMILY > self.items)
        return f"{_series(type_, brand)} {type_.names[0][0].upper()}{family * 7919 % prime}"

    def _wording(self, type_: _ProductType, attribute: str, value: int) -> tuple[str, ...]:
        """Returns the ways to say that an attribute has a value, the last for queries only."""
        if attribute == _BRAND:
            return (_brand_name(value),)
        if attribute == _FITS:
            fitted = f"{_brand_name(value)} {_series(_fitted(type_), value)}"
            return f"for {fitted}", f"compatible with {fitted}", fitted
        if attribute == _FEATURE:
            feature = type_.feature
            if value == _WITH:
                return f"with {feature}", f"{feature} included", f"with {feature}"
            return f"without {feature}", f"no {feature}", f"{feature} free"
        return _wordings()[attribute][value]

    def _truth(self, type_: _ProductType, values: dict[str, int]) -> list[str]:
        return [
            f"{name}={self._model_name(type_, values[_BRAND], value)}"
            if name == _MODEL
            else f"{name}={self._wording(type_, name, value)[0]}"
            for name, value in values.items()
        ]

    def _title(self, type_: _ProductType, values: dict[str, int], draw: Callable[[], float]) -> str:
        named = draw() < 0.7
        parts = [_brand_name(values[_BRAND])] if draw() < 0.85 else []
        if not named or draw() < 0.5:
            parts.append(self._model_name(type_, values[_BRAND], values[_MODEL]))
        after = []
        for attribute, value in values.items():
            if attribute in (_BRAND, _MODEL):
                continue
            words = _pick(_title_words(self._wording(type_, attribute, value)), draw() ** 1.5)
            stated, before = draw() < 0.8, draw() < 0.4 and attribute not in (_FEATURE, _FITS)
            if stated:
                (parts if before else after).append(words)
        if named:
            parts.append(_pick(_title_words(type_.names), draw() ** 1.5))
        clauses = [" ".join(parts), *after]
        if draw() < 0.35:
            other = _pick(_product_types(), draw()).names[0]
            clauses.append(
                _pick(("goes with your", "not a", "ideal next to a"), draw()) + " " + other
            )
        clauses += [_pick(_words()["filler"], draw()) for _ in range(int(4 * draw()))]
        if draw() < 0.3:
            clauses = [*clauses[1:], clauses[0]]
        title = string.capwords(_pick(_BREAKS, draw()).join(filter(None, clauses)))
        return _misspelt(title, draw()) if draw() < 0.08 else title

    def _description(self, type_: _ProductType, values: dict[str, int]) -> str:
        facts = "; ".join(fact.replace("=", ": ") for fact in self._truth(type_, values))
        return f"A {type_.names[0]} from our {type_.group.lower()} range. {facts}."

    def _item_row(
        self, number: int, type_: _ProductType, values: dict[str, int], draw: Callable[[], float]
    ) -> dict:
        colour = values.get("colour")
        path = [type_.department, type_.group, string.capwords(type_.names[0])]
        return {
            "item_id": self._item_id(number),
            "title": self._title(type_, values, draw),
            "description": self._description(type_, values) if draw() < 0.6 else None,
            "brand": _brand_name(values[_BRAND]) if draw() < 0.9 else None,
            "colour": (
                _wordings()["colour"][colour][0] if colour is not None and draw() < 0.7 else None
            ),
            "category": path if draw() < 0.9 else None,
            "truth_type": type_.names[0],
            "truth_attributes": self._truth(type_, values),
        }

    def _item_id(self, number: int) -> str:
        # An odd factor permutes the numbers below 2^36, so that ids tell nothing of the type.
        code = np.base_repr((number * 2654435761 + self.seed) % 2**36, 36)
        return f"P{code:0>7}"

    def _item_chunks(self) -> Iterator[Chunk]:
        starts, step = self._family_starts, _CHUNK // _FAMILY
        for first in range(0, starts[-1], step):
            families = np.arange(first, min(first + step, starts[-1]))
            items, types, values = self._attributes(families)
            draws = self._uniforms(_TEXT_DRAWS, items, _TEXT_WIDTH)
            rows = [
                self._item_row(
                    item, _product_types()[type_], _present(row), iter(draw.tolist()).__next__
                )
                for item, type_, row, draw in zip(
                    items.tolist(), types.tolist(), values, draws, strict=True
                )
            ]
            yield Chunk(
                table=pa.Table.from_pylist(rows, schema=_ITEM_SCHEMA),
                file="simulated items",
                first_row=first * _FAMILY + 1,
            )

    def _some_families(
        self, numbers: np.ndarray, most: int, random: np.random.Generator
    ) -> np.ndarray:
        """Draws families of the types of these numbers, or returns all when they are few."""
        starts = self._family_starts[numbers]
        sizes = self._family_starts[numbers + 1] - starts
        total, ends = int(sizes.sum()), np.cumsum(sizes)
        taken = np.arange(total) if total <= most else np.unique(random.integers(0, total, most))
        block = np.searchsorted(ends, taken, "right")
        return starts[block] + taken - (ends - sizes)[block]

    def _pool(self, type_: _ProductType, random: np.random.Generator) -> _Pool:
        """Draws items that queries for a type may be judged against."""
        relation_of = _relations()[type_.number]
        families = np.concatenate(
            [
                self._some_families(np.flatnonzero(relation_of == relation), most, random)
                for relation, most in enumerate(_POOL_FAMILIES)
            ]
        )
        items, types, values = self._attributes(np.sort(families))
        return _Pool(items=items, values=values, relation=relation_of[types])

    def _query(
        self, type_: _ProductType, values: dict[str, int], random: np.random.Generator
    ) -> _Query:
        """Asks for some of the attributes of an anchor item, in a customer's words."""
        draw = random.random
        name = _pick(type_.names, draw())
        if draw() < 0.07:
            asked = (_BRAND, _MODEL)
            model = self._model_name(type_, values[_BRAND], values[_MODEL])
            words = [_brand_name(values[_BRAND]), model] + ([name] if draw() < 0.3 else [])
        else:
            asked = [a for a in values if a != _MODEL]
            count = min(len(asked), int(np.searchsorted((0.16, 0.54, 0.86), draw())))
            asked = tuple(random.choice(asked, count, replace=False).tolist())
            words = [name]
            for attribute in asked:
                wording = _pick(self._wording(type_, attribute, values[attribute]), draw())
                after = draw() < 0.5 or attribute in (_FEATURE, _FITS)
                words.insert(len(words) if after else 0, wording)
            if draw() < 0.06:
                words.insert(0, _pick(_words()["query filler"], draw()))
        text = " ".join(words).lower()
        if draw() < 0.04:
            text = _misspelt(text, draw())
        popularity = self._shares[type_.number] / self._shares.mean()
        frequency = 2000 * popularity * 6.0 ** -len(asked) * random.lognormal(0, 1)
        return _Query(
            text=text,
            asked={attribute: values[attribute] for attribute in asked},
            frequency=float(np.ceil(frequency)),
        )

    def _judged(
        self, query: _Query, pool: _Pool, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses rows of a pool to be judged for a query, and gives their true grades."""
        columns = [_columns()[attribute] for attribute in query.asked]
        matches = pool.values[:, columns] == np.array(list(query.asked.values()), np.int64)
        off = (~matches).sum(axis=1)
        grades = np.full(len(off), _I)
        grades[(pool.relation == _OWN) & (off == 0)] = _E
        grades[(pool.relation == _OWN) & (off == 1)] = _S
        grades[(pool.relation == _SUBSTITUTE) & (off == 0)] = _S
        grades[pool.relation == _COMPLEMENT] = _C
        # Hard ones first: they share an attribute asked for, or a word of the type's name.
        readiness = _READINESS[pool.relation] * (1 + 8 * matches.sum(axis=1))
        order = np.argsort(random.exponential(size=len(off)) / readiness)
        rows = [order[grades[order] == grade] for grade in range(len(_GRADES))]
        total = max(random.poisson(self.judgements_per_query), 2)
        total = min(total, len(rows[_E]) / _GRADE_SHARES[_E])
        # A type without complements has no C, which the others make up for.
        shares = np.array(_GRADE_SHARES) * [1, 1, 1.8 if len(rows[_C]) else 0, 1]
        counts = np.floor(total * shares + random.random(len(_GRADES))).astype(int)
        counts[_E] = max(counts[_E], 1)
        chosen = np.concatenate([r[:count] for r, count in zip(rows, counts, strict=True)])
        return chosen, grades[chosen]

    def _judgement_rows(
        self, query: _Query, type_: _ProductType, pool: _Pool, random: np.random.Generator
    ) -> list[dict]:
        chosen, grades = self._judged(query, pool, random)
        noisy = random.random(len(grades)) < self.label_noise
        labels = np.where(noisy, random.choice(len(_GRADES), len(grades), p=_GRADE_SHARES), grades)
        # An engine of middling quality has ranked them; attention falls with the position.
        position = np.argsort(np.argsort(grades + random.normal(0, 1.5, len(grades))))
        impressions = random.poisson(query.frequency * 0.85**position)
        clicks = random.binomial(impressions, _CLICK_RATES[grades])
        purchases = random.binomial(clicks, _PURCHASE_RATES[grades])
        shared = {
            "query": query.text,
            "query_frequency": query.frequency,
            "truth_type": type_.names[0],
            "truth_attributes": self._truth(type_, query.asked),
        }
        return [
            shared
            | {
                "item_id": self._item_id(int(pool.items[row])),
                "label": _GRADES[label],
                "impressions": int(shown),
                "clicks": int(clicked),
                "purchases": int(bought),
                "truth_label": _GRADES[grade],
            }
            for row, grade, label, shown, clicked, bought in zip(
                chosen, grades, labels, impressions, clicks, purchases, strict=True
            )
        ]

    def _judgements_of(self, type_: _ProductType, queries: int) -> Iterator[list[dict]]:
        """Yields the rows of one query after the other, all of one type."""
        seen: set[str] = set()
        for batch in range(queries):  # at least one new query a batch, or there are no more
            random = np.random.Generator(
                np.random.Philox(key=[self.seed, _QUERY_DRAWS], counter=[0, 0, batch, type_.number])
            )
            pool = self._pool(type_, random)
            anchors = random.choice(np.flatnonzero(pool.relation == _OWN), _QUERY_BATCH)
            for anchor in anchors:
                if len(seen) == queries:
                    return
                query = self._query(type_, _present(pool.values[anchor]), random)
                if query.text not in seen:
                    seen.add(query.text)
                    yield self._judgement_rows(query, type_, pool, random)

    def _judgement_chunks(self) -> Iterator[Chunk]:
        shares = np.where(np.diff(self._family_starts) > 0, self._shares, 0)
        counts = _apportion(self.queries, shares)
        first = 1
        for type_, count in zip(_product_types(), counts.tolist(), strict=True):
            groups = self._judgements_of(type_, count)
            while rows := [row for group in itertools.islice(groups, 512) for row in group]:
                table = pa.Table.from_pylist(rows, schema=_JUDGEMENT_SCHEMA)
                yield Chunk(table=table, file="simulated judgements", first_row=first)
                first += len(rows)
